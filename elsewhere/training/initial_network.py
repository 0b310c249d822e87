"""What a curriculum starts from: its network, and whether the phases fit it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TypeAlias

from elsewhere.errors import CurriculumError, ElsewhereError, InputError, WeightsError
from elsewhere.models import InputTransform, Model, load_model
from elsewhere.models.building import default_arguments
from elsewhere.models.heads import find_head, with_head_named
from elsewhere.models.names import check_named, is_factory, name_in_python
from elsewhere.models.readouts import READOUT
from elsewhere.models.transform import named_transform, own_transform
from elsewhere.stimuli.sets import WITH_PARTS
from elsewhere.stimuli.transformations import check_seen
from elsewhere.storage.files import is_checkpoint
from elsewhere.training.cards import Card
from elsewhere.training.checkpoints import load_checkpoint, read_card
from elsewhere.training.curriculum import BatchNorm, Curriculum
from elsewhere.training.heads import check_replaceable
from elsewhere.training.optimisation import find_dropout, find_factors, select_parameters
from elsewhere.training.rehearsal import rehearse
from elsewhere.training.resolution import ResolvedPhase
from elsewhere.training.seeds import derive_seed
from elsewhere.training.statistics import Treatment
from elsewhere.types import Convention

Units: TypeAlias = int | tuple[str, ...]
"""The classes of a head, unit by unit; only their number where nothing names them."""


def start_model(curriculum: Curriculum, *, trust: Collection[str] = ()) -> Model:
    """Return the network that a curriculum starts from; for `trust`, see :func:`train`.

    Raises
    ------
    InputError
        A file names a factory that the user does not.
    CurriculumError
        It cannot be had; the key is named.
    """
    network = curriculum.network
    if curriculum.source.read:
        check_named(network.name, curriculum.source.file or "the curriculum", trust)
    else:
        name_in_python(network.name)
    try:
        if is_checkpoint(network.weights):
            # the curriculum's own name was checked, and the checkpoint must be of that network
            model = load_checkpoint(network.weights, trust={*trust, network.name})
            _check_same(curriculum, model)
            return with_head_named(dataclasses.replace(model, canvas_size=curriculum.canvas.size))
        arguments = dict(network.arguments)
        sized = not is_factory(network.name) and "canvas" in default_arguments(network.name)
        if sized or READOUT in arguments:
            arguments.setdefault("canvas", curriculum.canvas.size)
        model = load_model(
            network.name,
            weights=network.weights,
            model_args=arguments,
            # a trunk whose head is new
            partial_weights=not network.random and "num_classes" in arguments,
            state_key=network.state_key,
            seed=derive_seed(curriculum.seed, "weights"),
            transform=_transform(curriculum),
        )
        model = dataclasses.replace(model, canvas_size=curriculum.canvas.size)
        if network.random and own_transform(model.module) is None:
            # what starts at random is trained with the curriculum's input: nothing is assumed
            model = dataclasses.replace(model, notes=())
        _check_covered(model)
        return with_head_named(model)
    except ElsewhereError as error:
        raise curriculum.error(("network",), error) from error


def _check_covered(model: Model) -> None:
    """Refuse weights that leave more than the head at random.

    Raises
    ------
    WeightsError
        Naming what is missing.
    """
    if not model.random_keys:
        return
    head = find_head(model)[0]
    missing = [key for key in model.random_keys if not key.startswith(f"{head}.")]
    if missing:
        named = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise WeightsError(
            f"{model.weights} lacks {len(missing)} tensor(s) of {model.name} ({named}); expected "
            f"everything but the head, {head}; check the model's name and the file"
        )


def check_phases(
    curriculum: Curriculum, resolved: Sequence[ResolvedPhase], model: Model, card: Card | None
) -> Units:
    """Refuse heads that do not fit and keys that do nothing; return the head's units.

    Classes are matched by their names: a head that is kept must have the phase's, in any order.
    Where weights name no classes, their number is all that can be compared.

    Raises
    ------
    CurriculumError
        Naming the phase and the key.
    """
    try:
        first = find_head(model)[1].out_features
    except ElsewhereError as error:
        raise curriculum.error(("network",), error) from error
    for name, weights in model.module.named_parameters():
        if weights.isnan().any():
            raise curriculum.error(
                ("network",), f"its weights {name} hold nan before any training; give other weights"
            )
    units: Units = first if card is None else card.categories
    for phase in resolved:
        before = units if phase.previous is None else resolved[phase.previous].categories
        if not has_new_head(curriculum, phase):
            _check_units(curriculum, phase, model, before)
        check_keys(curriculum, phase, model, default_norms(curriculum, card))
    return units


def _check_units(curriculum: Curriculum, phase: ResolvedPhase, model: Model, before: Units) -> None:
    path, names = ("phase", phase.index, "new_head"), phase.categories
    n_before = before if isinstance(before, int) else len(before)
    if n_before != len(names):
        raise curriculum.error(
            path,
            f"the head has {n_before} classes and the phase {len(names)}; write new_head = true or "
            f"choose {n_before} classes",
        )
    if isinstance(before, int) or before == names:
        return
    other = next((name for name in names if name not in before), None)
    if other is not None:
        raise curriculum.error(
            path,
            f"the head has no unit for {other!r}: its classes are {', '.join(before[:5])}"
            f"{', ...' if len(before) > 5 else ''}; write new_head = true, or choose its classes",
        )
    try:  # the units have to be put in another order
        check_replaceable(model, *find_head(model))
    except ElsewhereError as error:
        raise curriculum.error(path, error) from error


def start_card(curriculum: Curriculum, *, trust: Collection[str] = ()) -> Card | None:
    """Return the card of the checkpoint that a curriculum starts from; None where it does not."""
    weights = curriculum.network.weights
    if not is_checkpoint(weights):
        return None
    return read_card(weights, trust={*trust, curriculum.network.name})


def start_notes(
    curriculum: Curriculum, phase: ResolvedPhase, card: Card | None, model: Model
) -> list[str]:
    """Return the doubts with which a phase starts."""
    notes = [] if card is None else list(card.notes)
    network = curriculum.network
    if (
        phase.previous is None
        and card is None
        and not network.random
        and not has_new_head(curriculum, phase)
    ):
        source = f"the weights {Path(network.weights).name}"
        if model.random_keys:
            notes.append(
                f"{source} lack the head's {', '.join(model.random_keys)}: what is not there was "
                "drawn at random, as for a new head, and unit i was taken for the phase's class i"
            )
        else:
            notes.append(
                f"{source} name no classes: unit i of their head was taken for the phase's class i"
            )
    if phase.phase.split != "train" and phase.phase.objects.partition(":")[0] not in WITH_PARTS:
        notes.append(
            f"split = {phase.phase.split!r} only draws other exemplars: {phase.phase.objects} has "
            "one part"
        )
    return notes


def default_norms(curriculum: Curriculum, card: Card | None) -> BatchNorm:
    """Return what becomes of running statistics in phases that say nothing of them.

    What goes on from a checkpoint goes on as the run that left it: a curriculum in two parts is the
    same as in one. Checkpoints of older versions do not say, and theirs are measured anew.
    """
    network = curriculum.network
    if network.batch_norm is not None:
        return network.batch_norm
    if card is not None:
        return card.batch_norm_default or "recalibrated"
    return "recalibrated" if network.random else "frozen"


def check_keys(
    curriculum: Curriculum, phase: ResolvedPhase, model: Model, default: BatchNorm
) -> None:
    """Refuse keys of a phase that the network has nothing for; for `default`, see `default_norms`.

    Raises
    ------
    CurriculumError
        Naming the phase and the key.
    """
    keys, network, names = phase.phase, model.module, set[str]()
    try:
        key = "trainable"
        for pattern in keys.trainable:
            chosen = select_parameters(model, pattern)
            if pattern == "all":
                own = dict(network.named_parameters())
                chosen = [name for name in chosen if own[name].requires_grad]
            names.update(chosen)
        key = "batch_norm"
        norms = Treatment.of(curriculum.network, keys, default)
        norms.check(network, model.name, phase.steps * keys.batch)
        key = "freeze_affine"
        norms.check_affine(network, model.name)
        names -= norms.left_out(network)
        key = "rates"
        find_factors(model, keys.rates, sorted(names))
        key = "new_head"
        if has_new_head(curriculum, phase):
            check_replaceable(model, *find_head(model), len(phase.categories))
        rehearsal = rehearse(model, keys.trainable, keys.batch, norms)
        if rehearsal.refused:
            raise curriculum.error(("network",), rehearsal.refused)
        key = "dropout"
        if keys.dropout and not find_dropout(network):
            raise InputError(
                f"{model.name} has no dropout layer whose probability could be set; expected "
                "torch.nn.Dropout or its like; leave the key out"
            )
        if keys.dropout and not rehearsal.drops:
            raise InputError(
                f"no dropout layer of {model.name} is at work in this phase (those that run belong "
                "to what is frozen); leave the key out, or train what they act on"
            )
        key = "batch_norm"
        if norms.stated == "phase" and rehearsal.norms != norms.mode:
            raise InputError(
                f"{norms.mode!r} does nothing: all normalisations of {model.name} are frozen in "
                "this phase, by trainable or by whoever built the network; leave the key out, or "
                "train what they belong to"
            )
        key = "trainable"
        if rehearsal.moves:
            raise InputError(
                f"{model.name} gathers statistics of frozen layers by a function such as "
                "torch.nn.functional.batch_norm, by arithmetic of its own, or in a module that "
                "does not ask whether it is in training mode: they would move although nothing "
                "before them is trained; take torch.nn.BatchNorm2d, which can be frozen, or train "
                "what they are of"
            )
        key = "label_smoothing"
        if keys.label_smoothing and len(phase.categories) == 1:
            raise InputError("does nothing with a single class; leave it out")
        key = "objects"
        color = curriculum.canvas.background_color(model.transform.mean)
        phase.train.seen_on(color)
        key, axes = "axes", keys.drawn_axes
        check_seen(phase.variants, axes.names, axes.positions.tolist(), color)
        key = "warmup"
        rising = (keys.warmup or 0) * phase.steps
        if keys.schedule != "constant" and rising > phase.steps - 1 > 0:
            raise InputError(
                f"{keys.warmup_share:g} of {phase.steps} steps leaves none in which the rate of "
                f"schedule = {keys.schedule!r} falls; give a smaller share, or more steps"
            )
        key = "criterion"
        if keys.criterion is not None and keys.criterion.window > phase.steps:
            raise InputError(
                f"its window of {keys.criterion.window} steps is longer than the phase, which has "
                f"{phase.steps}, so that it is never asked; shorten the window, or add steps"
            )
    except CurriculumError:
        raise
    except ElsewhereError as error:
        raise curriculum.error(("phase", phase.index, key), error) from error


def has_new_head(curriculum: Curriculum, phase: ResolvedPhase) -> bool:
    """Return whether a phase starts with a new head."""
    if phase.phase.new_head is not None:
        return phase.phase.new_head
    return phase.previous is None and curriculum.network.random


def _transform(curriculum: Curriculum) -> InputTransform | Convention | None:
    network, default = curriculum.network, InputTransform()
    numbers = [key for key in ("gain", "mean", "std") if getattr(network, key) is not None]
    if network.input is not None and numbers:
        raise curriculum.error(
            ("network", "input"),
            f"{network.input!r} says all of the input, and {', '.join(numbers)} would change it; "
            "give the name, or the numbers",
        )
    if not numbers:
        return network.input
    return InputTransform(
        mean=default.mean if network.mean is None else network.mean,  # type: ignore[arg-type]
        std=default.std if network.std is None else network.std,  # type: ignore[arg-type]
        gain=default.gain if network.gain is None else network.gain,
    )


def _check_same(curriculum: Curriculum, model: Model) -> None:
    network, stated = curriculum.network, _transform(curriculum)
    if isinstance(stated, str):
        stated = named_transform(stated, model.module, model.name)
    held = {**default_arguments(model.name), **model.arguments}
    other = {k: v for k, v in network.arguments.items() if k not in held or held[k] != v}
    if other:
        key, value = next(iter(other.items()))
        has = f"has {key} = {held[key]!r}" if key in held else f"was built without {key}"
        raise curriculum.error(
            ("network", "arguments"),
            f"the checkpoint {network.weights} {has}; got {value!r}; leave the arguments out",
        )
    if network.state_key is not None:
        raise curriculum.error(
            ("network", "state_key"),
            f"the checkpoint {network.weights} holds one state; got {network.state_key!r}; leave "
            "the key out",
        )
    if model.name != network.name:
        raise curriculum.error(
            ("network", "name"),
            f"the checkpoint {network.weights} is a {model.name}; got {network.name}; name that",
        )
    if stated is not None and stated != model.transform:
        raise curriculum.error(
            ("network",),
            f"the checkpoint {network.weights} was trained with {model.transform}; got {stated}; "
            "leave the input as it is",
        )

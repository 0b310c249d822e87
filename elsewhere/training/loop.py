"""`train`: a curriculum to a directory of checkpoints and metrics."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from elsewhere.errors import ElsewhereError, InputError, StorageError, WeightsError
from elsewhere.models import InputTransform, Model, find_device, load_model, model_registry
from elsewhere.models.factories import check_named
from elsewhere.models.machine import using_threads
from elsewhere.storage.files import is_file, make_inside, refuse_link, remove_leftovers
from elsewhere.training.beginning import (
    IN_USE,
    RUN,
    Begun,
    begin_run,
    check_room,
    lock_run,
    open_run,
)
from elsewhere.training.checkpoints import (
    Card,
    is_checkpoint,
    load_checkpoint,
    read_card,
    read_weights,
)
from elsewhere.training.curriculum import Curriculum
from elsewhere.training.heads import check_replaceable, find_head, replace_head
from elsewhere.training.metrics import MetricsLog, ReportProgress
from elsewhere.training.optimisation import (
    find_dropout,
    find_factors,
    select_parameters,
    set_dropout,
)
from elsewhere.training.resolution import ResolvedPhase, resolve
from elsewhere.training.seeds import derive_seed, own_generators
from elsewhere.training.stage import Stage, Surroundings
from elsewhere.training.state import RunState, write_state

logger = logging.getLogger(__name__)

SAVE_EVERY = 15.0


def train(
    curriculum: Curriculum,
    out: str | Path,
    *,
    device: str = "auto",
    progress: ReportProgress | None = None,
    seed: int | None = None,
    resume: bool = True,
    data_dir: Path | None = None,
    tensorboard: bool = False,
    save_every: float = SAVE_EVERY,
    threads: int | None = None,
    trust: Collection[str] = (),
) -> Path:
    """Train a network through the phases of a curriculum.

    `out` then holds ``curriculum.json``, ``metrics.jsonl`` and ``checkpoints/PHASE-STEP`` as
    ``.safetensors`` with a ``.json`` card each. A run that was killed goes on where it stood, and
    ends with the same weights on the same machine: the number of threads, on which they depend, is
    part of a run, which goes on with as many as it was begun with.

    Parameters
    ----------
    curriculum
        What to train.
    out
        The directory; it is made where there is none.
    device
        ``auto``, ``cpu``, ``cuda``, ...
    progress
        Called now and then with a :class:`Report`.
    seed
        Instead of the curriculum's.
    resume
        Whether a run in `out` goes on; else it is refused.
    data_dir
        The folder of the object sets that are not made here.
    tensorboard
        Whether scalars also go to TensorBoard files; needs the extra.
    save_every
        Seconds between two states from which a killed run can go on, at least.
    threads
        Of the CPU; as many as torch has by default, or as the run was begun with.
    trust
        Factories (``package.module:factory``) that may be built where the file of the curriculum,
        or the card of a checkpoint that it starts from, names them; see docs/security.md.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    CurriculumError
        What cannot be trained as it is written, before anything is.
    ExistsError
        `out` holds the run of another curriculum, seed, number of threads, or of other pictures.
    StorageError
        Another process trains it, the checkpoints do not fit the disk, or it cannot be written.
    TrainingError
        The loss or the weights are not finite any more.
    """
    if seed is not None:
        curriculum = dataclasses.replace(curriculum, seed=seed)
    place = find_device(device)
    directory = Path(out)
    fingerprint = curriculum.fingerprint
    with contextlib.ExitStack() as stack:
        is_begun = is_file(directory / RUN)
        if is_begun:
            stack.enter_context(lock_run(directory))
        begun, state = open_run(directory, curriculum, fingerprint, resume=resume)
        resolved = resolve(curriculum, data_dir=data_dir)
        run = Begun.now(place, resolved, threads=threads, earlier=begun, directory=directory)
        if state.phase >= len(curriculum.phases):
            logger.info("%s is finished", directory)
            return directory
        model = start_model(curriculum, trust=trust)
        units = check_phases(curriculum, resolved, model)
        check_room(directory, resolved, model)
        if not is_begun:
            make_inside(directory, "checkpoints")
            stack.enter_context(lock_run(directory))
            if is_file(directory / RUN):
                raise StorageError(IN_USE.format(directory))
        remove_leftovers(make_inside(directory, "checkpoints"))
        stack.enter_context(using_threads(run.threads))
        initial = {name: value.clone() for name, value in model.module.state_dict().items()}
        frozen = frozenset(n for n, p in model.module.named_parameters() if not p.requires_grad)
        dropout = find_dropout(model.module)
        if begun is None:
            begin_run(directory, curriculum, fingerprint, run)
        log = MetricsLog(
            directory / "metrics.jsonl", size=state.metrics_bytes, tensorboard=tensorboard
        )
        stack.callback(log.close)
        around = Surroundings(
            curriculum, fingerprint, directory, place, log, progress, save_every, run.notes
        )
        stack.enter_context(own_generators(place))
        stack.enter_context(_plain_numerics(place))
        for phase in resolved[state.phase :]:
            logger.info("phase %s: %d steps at most", phase.name, phase.steps)
            model = _at_start(model, phase, resolved, curriculum, (initial, units), directory)
            # an earlier phase may have changed both
            set_dropout(model.module, dropout)
            _restore_frozen(model, frozen, curriculum, resolved, phase)
            Stage(phase, model, state, around).run()
            state = RunState(state.run, phase=phase.index + 1, metrics_bytes=log.sync())
            write_state(directory / "state.pt", state)
    return directory


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
    try:
        if is_checkpoint(network.weights):
            # the curriculum's own name was checked, and the checkpoint must be of that network
            model = load_checkpoint(network.weights, trust={*trust, network.name})
            _check_same(curriculum, model)
            return dataclasses.replace(model, canvas_size=curriculum.canvas.size)
        arguments = dict(network.arguments)
        if network.name in model_registry and network.name.endswith(("-slim", "-cnn")):
            arguments.setdefault("canvas", curriculum.canvas.size)
        model = load_model(
            network.name,
            weights=network.weights,
            model_args=arguments,
            # a trunk whose head is new
            partial_weights=not network.random and "num_classes" in arguments,
            seed=derive_seed(curriculum.seed, "weights"),
            transform=_transform(curriculum),
        )
        model = dataclasses.replace(model, canvas_size=curriculum.canvas.size)
        _check_covered(model)
        return model
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


def check_phases(curriculum: Curriculum, resolved: Sequence[ResolvedPhase], model: Model) -> int:
    """Refuse heads that do not fit and patterns that cover nothing; return the head's classes.

    Raises
    ------
    CurriculumError
        Naming the phase and the key.
    """
    try:
        first = find_head(model)[1].out_features
    except ElsewhereError as error:
        raise curriculum.error(("network",), error) from error
    for phase in resolved:
        before = first if phase.previous is None else len(resolved[phase.previous].categories)
        needed = len(phase.categories)
        if not has_new_head(curriculum, phase) and before != needed:
            raise curriculum.error(
                ("phase", phase.index, "new_head"),
                f"the head has {before} classes and the phase {needed}; write new_head = true, or "
                f"choose {before} classes",
            )
        check_keys(curriculum, phase, model)
    return first


def check_keys(curriculum: Curriculum, phase: ResolvedPhase, model: Model) -> None:
    """Refuse keys of a phase that the network has nothing for.

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
        key = "rates"
        find_factors(model, keys.rates, sorted(names))
        key = "new_head"
        if has_new_head(curriculum, phase):
            check_replaceable(model, *find_head(model))
        key = "dropout"
        if keys.dropout is not None and not find_dropout(network):
            raise InputError(
                f"{model.name} has no dropout layer whose probability could be set; expected "
                "torch.nn.Dropout or its like; leave the key out"
            )
    except ElsewhereError as error:
        raise curriculum.error(("phase", phase.index, key), error) from error


def has_new_head(curriculum: Curriculum, phase: ResolvedPhase) -> bool:
    """Return whether a phase starts with a new head."""
    if phase.phase.new_head is not None:
        return phase.phase.new_head
    return phase.previous is None and curriculum.network.random


def final_card(directory: Path, phase: str) -> Card:
    """Return the card of the checkpoint with which a phase ended.

    Raises
    ------
    StorageError
        There is none.
    """
    for path in sorted((directory / "checkpoints").glob(f"{phase}-*.json"), reverse=True):
        refuse_link(path)
        card = read_card(path)
        if card.phase == phase and card.final:
            return card
    raise StorageError(
        f"{directory} lacks the final checkpoint of phase {phase!r}, which a later phase starts "
        "from; delete the directory and train again"
    )


def _at_start(
    model: Model,
    phase: ResolvedPhase,
    resolved: Sequence[ResolvedPhase],
    curriculum: Curriculum,
    initial: tuple[Mapping[str, torch.Tensor], int],
    directory: Path,
) -> Model:
    """Return the network as a phase finds it, on the CPU."""
    model = model.to("cpu")
    if phase.previous is None:
        state, units = dict(initial[0]), initial[1]
    else:
        previous = resolved[phase.previous]
        state = read_weights(final_card(directory, previous.name))
        units = len(previous.categories)
    if find_head(model)[1].out_features != units:
        model = replace_head(model, units, seed=0)
    model.module.load_state_dict(state)
    if has_new_head(curriculum, phase):
        seed = derive_seed(phase.exemplar_seed, "head", phase.name)
        model = replace_head(model, len(phase.categories), seed=seed)
    return model


def _restore_frozen(
    model: Model,
    frozen: Collection[str],
    curriculum: Curriculum,
    resolved: Sequence[ResolvedPhase],
    phase: ResolvedPhase,
) -> None:
    """Freeze what whoever built the network had frozen, but for a head that is new since."""
    chain = [phase]
    while chain[-1].previous is not None:
        chain.append(resolved[chain[-1].previous])
    new = any(has_new_head(curriculum, earlier) for earlier in chain)
    head = f"{find_head(model)[0]}."
    for name, parameter in model.module.named_parameters():
        parameter.requires_grad_(name not in frozen or (new and name.startswith(head)))


def _transform(curriculum: Curriculum) -> InputTransform | None:
    network, default = curriculum.network, InputTransform()
    if network.gain is None and network.mean is None and network.std is None:
        return None
    return InputTransform(
        mean=default.mean if network.mean is None else network.mean,  # type: ignore[arg-type]
        std=default.std if network.std is None else network.std,  # type: ignore[arg-type]
        gain=default.gain if network.gain is None else network.gain,
    )


def _check_same(curriculum: Curriculum, model: Model) -> None:
    network, stated = curriculum.network, _transform(curriculum)
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


@contextmanager
def _plain_numerics(device: torch.device) -> Iterator[None]:
    """On CUDA: no TF32, and the same algorithms each time."""
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        yield

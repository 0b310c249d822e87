"""A curriculum made definite for one seed: which classes, which exemplars, which places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from elsewhere.errors import ElsewhereError
from elsewhere.stimuli import Canvas, ObjectSet, load_objects
from elsewhere.training.curriculum import Choice, Curriculum, Exemplars, Phase, Split
from elsewhere.training.placements import Placement, make_placement
from elsewhere.training.seeds import derive_seed

Loaded: TypeAlias = dict[
    tuple[str, Split, tuple[str, ...], Exemplars, int], tuple[ObjectSet, ObjectSet | None]
]


@dataclass(frozen=True, eq=False)
class ResolvedPhase:
    """A phase with everything that it shows.

    Parameters
    ----------
    index
        Its number in the curriculum, from 0.
    phase
        Its description.
    steps
        The number of its steps, at most.
    categories
        The classes, in the order of the head's units.
    train, held_out
        The exemplars that are trained on, and those that are not; None where there are none.
    placement
        Where they stand.
    checkpoints
        The steps after which weights are kept, ascending.
    previous
        Index of the phase whose final weights it starts from; None for the initial ones.
    exemplar_seed
        What its object set was loaded with.
    """

    index: int
    phase: Phase
    steps: int
    categories: tuple[str, ...]
    train: ObjectSet
    held_out: ObjectSet | None
    placement: Placement
    checkpoints: tuple[int, ...]
    previous: int | None
    exemplar_seed: int

    @property
    def name(self) -> str:
        """The phase's name."""
        return self.phase.name


def resolve(curriculum: Curriculum, *, data_dir: Path | None = None) -> tuple[ResolvedPhase, ...]:
    """Return the phases of a curriculum as its seed makes them, all their objects loaded.

    Parameters
    ----------
    curriculum
        With the seed that is to be trained.
    data_dir
        The folder of the object sets that are not made here.

    Raises
    ------
    CurriculumError
        An unknown set or environment, a location off the canvas, or more classes or exemplars
        than the set has; the phase and the key are named.
    """
    orders: dict[tuple[str, Split], tuple[str, ...]] = {}
    loaded: Loaded = {}
    resolved: list[ResolvedPhase] = []
    for index, phase in enumerate(curriculum.phases):
        key = (phase.objects, phase.split)
        try:
            if key not in orders:
                orders[key] = _order(curriculum, phase, data_dir)
        except ElsewhereError as error:
            raise curriculum.error(("phase", index, "objects"), error) from error
        categories = _choose(curriculum, index, orders[key], resolved)
        resolved.append(_resolve_phase(curriculum, index, categories, resolved, data_dir, loaded))
    return tuple(resolved)


def log_spaced(steps: int, count: int) -> tuple[int, ...]:
    """Return 0, and about `count` steps that grow by a constant factor from 1 to the last one.

    They are fewer where some coincide.

    Examples
    --------
    >>> log_spaced(1000, 4)
    (0, 1, 10, 100, 1000)
    """
    spaced = np.geomspace(1, steps, max(count, 2)) if count > 1 else np.array([steps])
    return tuple(sorted({0, steps, *(int(step) for step in np.floor(spaced + 0.5))}))


def load_phase_objects(
    spec: str,
    canvas: Canvas,
    *,
    categories: Sequence[str],
    train: int,
    held_out: int,
    seed: int,
    split: Split = "train",
    data_dir: Path | None = None,
) -> tuple[ObjectSet, ObjectSet | None]:
    """Return the exemplars that a phase trains on, and those it holds out.

    Parameters
    ----------
    spec, categories, split
        The object set, and which classes of which of its parts.
    canvas
        States the size of the objects.
    train, held_out
        How many of each class; the first ones are trained on.
    seed
        Draws the exemplars.
    data_dir
        The folder of the object sets that are not made here.
    """
    background = canvas.background if canvas.background != "mean" else 0
    color = (background,) * 3 if isinstance(background, int) else background
    objects = load_objects(
        spec,
        size=canvas.object_size,
        categories=tuple(categories),
        per_category=train + held_out,
        seed=seed,
        data_dir=data_dir,
        background_color=color if spec.startswith("folder:") else None,
        split=split,
    )
    return objects.split(train) if held_out else (objects, None)


def _order(curriculum: Curriculum, phase: Phase, data_dir: Path | None) -> tuple[str, ...]:
    """Return all categories of a set in an order that depends on the set and the seed only."""
    objects = load_objects(
        phase.objects, size=curriculum.canvas.object_size, data_dir=data_dir, split=phase.split
    )
    names = sorted(objects.category_names)
    rng = np.random.default_rng(derive_seed(curriculum.seed, "classes", phase.objects))
    return tuple(names[place] for place in rng.permutation(len(names)))


def _choose(
    curriculum: Curriculum,
    index: int,
    order: tuple[str, ...],
    resolved: Sequence[ResolvedPhase],
) -> tuple[str, ...]:
    phase = curriculum.phases[index]
    path = ("phase", index, "categories")
    if phase.same_categories_as is not None:
        other = _by_name(resolved)[phase.same_categories_as]
        if other.phase.objects != phase.objects:
            raise curriculum.error(
                ("phase", index, "same_categories_as"),
                f"{other.name!r} has {other.phase.objects!r}, this phase {phase.objects!r}; "
                "expected the same objects",
            )
        return other.categories
    used = {
        category: other.name
        for other in resolved
        if other.phase.objects == phase.objects
        for category in other.categories
    }
    wanted = phase.categories
    if isinstance(wanted, int):
        left = [name for name in order if name not in used]
        if wanted > len(left):
            gone = f", of which earlier phases have {len(used)}" if used else ""
            raise curriculum.error(
                path,
                f"{wanted} classes are asked for; {phase.objects!r} has {len(order)}{gone}; ask "
                f"for {len(left)} or fewer",
            )
        return tuple(left[:wanted])
    if isinstance(wanted, Choice):
        chosen = order[wanted.skip : wanted.skip + wanted.count]
        if len(chosen) < wanted.count:
            raise curriculum.error(
                path,
                f"{wanted.count} classes after the first {wanted.skip} are asked for; "
                f"{phase.objects!r} has {len(order)}; ask for fewer",
            )
    elif wanted is None:
        chosen = order
    else:
        for name in wanted:
            if name not in order or wanted.count(name) > 1:
                what = "twice" if name in order else f"which {phase.objects!r} does not have"
                raise curriculum.error(path, f"names {name!r}, {what}; mend the list")
        chosen = wanted
    for name in chosen:
        if name in used:
            raise curriculum.error(
                path,
                f"{name!r} is a class of the earlier phase {used[name]!r} already; write "
                f"same_categories_as = {used[name]!r}, or choose others",
            )
    if not chosen:
        raise curriculum.error(path, "no class is asked for; expected 1 or more")
    return chosen


def _resolve_phase(
    curriculum: Curriculum,
    index: int,
    categories: tuple[str, ...],
    resolved: Sequence[ResolvedPhase],
    data_dir: Path | None,
    loaded: Loaded,
) -> ResolvedPhase:
    phase, canvas = curriculum.phases[index], curriculum.canvas
    exemplar_seed = curriculum.seed + phase.seed
    if exemplar_seed < 0:
        raise curriculum.error(
            ("phase", index, "seed"), "is below 0 with the curriculum's; raise it"
        )
    try:
        placement = make_placement(
            phase.environment,
            canvas,
            n_classes=len(categories),
            n_exemplars=phase.exemplars.train,
            seed=derive_seed(exemplar_seed, "places", phase.name),
        )
    except ElsewhereError as error:
        raise curriculum.error(("phase", index, "environment"), error) from error
    key = (phase.objects, phase.split, categories, phase.exemplars, exemplar_seed)
    try:
        if key not in loaded:  # phases often show the same objects elsewhere
            loaded[key] = load_phase_objects(
                phase.objects,
                canvas,
                categories=categories,
                train=phase.exemplars.train,
                held_out=phase.exemplars.held_out,
                seed=exemplar_seed,
                split=phase.split,
                data_dir=data_dir,
            )
    except ElsewhereError as error:
        raise curriculum.error(("phase", index, "exemplars"), error) from error
    train, held_out = loaded[key]
    steps = phase.n_steps(len(train))
    if isinstance(phase.checkpoints, int):
        checkpoints = log_spaced(steps, phase.checkpoints)
    else:
        late = [step for step in phase.checkpoints if step > steps]
        if late:
            raise curriculum.error(
                ("phase", index, "checkpoints"),
                f"step {late[0]} does not come: the phase has {steps} steps; leave it out, or add "
                "steps",
            )
        checkpoints = tuple(sorted({*phase.checkpoints, steps}))
    if phase.after is None:
        previous = index - 1 if index else None
    else:
        previous = None if phase.after == "none" else _by_name(resolved)[phase.after].index
    return ResolvedPhase(
        index, phase, steps, categories, train, held_out, placement, checkpoints, previous,
        exemplar_seed,
    )  # fmt: skip


def _by_name(resolved: Sequence[ResolvedPhase]) -> Mapping[str, ResolvedPhase]:
    return {phase.name: phase for phase in resolved}

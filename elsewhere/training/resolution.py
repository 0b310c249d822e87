"""A curriculum made definite for one seed: which classes, which exemplars, which places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from elsewhere.errors import ElsewhereError, ObjectSetError
from elsewhere.stimuli import Canvas, ObjectSet, load_objects
from elsewhere.stimuli.transformations import vary, window_of
from elsewhere.training.curriculum import Choice, Curriculum, Phase, Split
from elsewhere.training.placements import Placement, make_placement
from elsewhere.training.seeds import derive_seed, draw_location
from elsewhere.training.seen import (
    Digests,
    Division,
    Past,
    View,
    digest_each,
    digests,
    divide,
    ground_of,
    join,
    parse_view,
    set_name,
    too_few,
    view_of,
)
from elsewhere.types import Location


@dataclass(frozen=True, eq=False)
class ResolvedPhase:
    """A phase with everything that it shows."""

    index: int  # in the curriculum, from 0
    phase: Phase
    steps: int  # at most
    categories: tuple[str, ...]  # the classes, in the order of the head's units
    train: ObjectSet
    held_out: ObjectSet | None
    placement: Placement
    variants: tuple[ObjectSet, ...]
    """The exemplars that are trained on at each value of the axes that are drawn from; those as
    they are (`train`) where there is none."""
    checkpoints: tuple[int, ...]  # the steps after which weights are kept, ascending
    previous: int | None  # index of the phase whose final weights it starts from
    exemplar_seed: int  # what its object set was loaded with
    past: Past = field(default_factory=Past)  # what was trained on before the phase
    stale: tuple[str, ...] = ()  # classes of which a picture has been trained on before
    past_after: Past = field(default_factory=Past)

    @property
    def name(self) -> str:
        """The phase's name."""
        return self.phase.name


def resolve(
    curriculum: Curriculum, *, data_dir: Path | None = None, past: Past | None = None
) -> tuple[ResolvedPhase, ...]:
    """Return the phases of a curriculum as its seed makes them, all their objects loaded.

    `past` is what the network that it starts from has been trained on.

    Raises
    ------
    CurriculumError
        An unknown set or environment, a location off the canvas, or more classes or exemplars
        than the set has; the phase and the key are named.
    """
    orders: dict[tuple[str, Split], tuple[str, ...]] = {}
    resolved: list[ResolvedPhase] = []
    loaded: dict[Any, ObjectSet] = {}  # phases often show the same objects elsewhere
    for index, phase in enumerate(curriculum.phases):
        key = (phase.objects, phase.split)
        try:
            if key not in orders:
                orders[key] = _order(curriculum, phase, data_dir)
        except ElsewhereError as error:
            raise curriculum.error(("phase", index, "objects"), error) from error
        previous = _previous(curriculum, index)
        start = Past() if past is None else past
        before = start if previous is None else resolved[previous].past_after
        order = orders[key]
        while True:
            categories = _choose(curriculum, index, order, resolved, before)
            found = _resolve_phase(curriculum, index, categories, data_dir, before, loaded)
            drawn = phase.same_categories_as is None and not isinstance(phase.categories, tuple)
            stale = found.stale if drawn else ()
            if not stale:
                break
            if not isinstance(phase.categories, int):
                raise curriculum.error(
                    ("phase", index, "categories"),
                    f"{min(stale)!r} is no new class: the network has been trained on pictures of "
                    "it; name the classes one by one if that is meant",
                )
            order = tuple(name for name in order if name not in stale)
        resolved.append(found)
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
    past: Past | None = None,
    trained: Digests | None = None,
    loaded: dict[Any, ObjectSet] | None = None,
) -> tuple[ObjectSet, ObjectSet | None, tuple[str, ...]]:
    """Return the exemplars that a phase trains on, those it holds out, and the stale classes.

    Of each category the first `train` exemplars of the set's part `split`, drawn by the seed, are
    trained on, and `held_out` others are held out: none of what the network was trained on before,
    its `past`. A class is stale that shows any of that. Where the phase is over, `trained` are
    digests of what it was trained on: those exemplars are, whatever the set holds by now. `loaded`
    keeps what is loaded for later calls.

    Raises
    ------
    ObjectSetError
        The set has too few exemplars that have not been trained on, or does not hold those that
        were any more.
    """
    past = Past() if past is None else past
    kept = {} if loaded is None else loaded
    own_view = view_of(spec, canvas)

    def load(names: Sequence[str], count: int, view: View) -> ObjectSet:
        size, ground = parse_view(view)
        ground = ground_of(spec, canvas) if ground is None else ground
        key = (spec, split, size, ground, tuple(names), count, seed)
        if key not in kept:
            found = load_objects(
                spec,
                size=size,
                categories=tuple(names),
                per_category=count,
                seed=seed,
                data_dir=data_dir,
                background_color=ground if spec.startswith("folder:") else None,
                split=split,
            )
            # the canvas's colour is ground where a picture has it: none has to
            source = {name: text for name, text in found.source.items() if name != "whole"}
            kept[key] = replace(found, source=source)
        return kept[key]

    whole = load(categories, train + held_out, own_view)
    pools = {name: whole.select((name,)) for name in categories}
    if trained is None:  # equal pictures are one, in whichever class
        own = frozenset[bytes]().union(
            *(digests(p.select(per_category=train)) for p in pools.values())
        )
    else:
        own = trained
    parts: list[tuple[ObjectSet, Division]] = []
    stale: list[str] = []
    for name, pool in pools.items():
        while True:
            found = digest_each(pool)
            old = _seen_rows(pool, found, past, own_view, partial(load, (name,)))
            gone = old | {row for row, digest in enumerate(found) if digest in own}
            division = divide(found, train, held_out, trained=trained, excluded=gone)
            if not division.lacking:
                break
            if len(pool) > 4 * (train + held_out) + len(own):  # a set without an end
                raise _changed(spec, name, train - len(division.trained))
            try:
                pool = load((name,), len(pool) + division.lacking, own_view)
            except ObjectSetError as error:
                if len(division.trained) < train:
                    raise _changed(spec, name, train - len(division.trained)) from error
                raise too_few(spec, name, len(gone), held_out, error) from error
        parts.append((pool, division))
        if old & {*division.trained, *division.held_out}:
            stale.append(name)
    first = join([pool.subset(division.trained) for pool, division in parts])
    rest = None
    if held_out:
        rest = join([pool.subset(division.held_out) for pool, division in parts])
    return first, rest, tuple(stale)


def _seen_rows(
    pool: ObjectSet,
    found: Sequence[bytes],
    past: Past,
    own_view: View,
    load: Callable[[int, View], ObjectSet],
) -> set[int]:
    """Return the rows of the pictures of the past, however they were loaded then."""
    rows: set[int] = set()
    for view, seen in past.pictures.items():
        if seen:
            then = found if view == own_view else digest_each(load(len(pool), view))
            rows |= {row for row, digest in enumerate(then) if digest in seen}
    return rows


def _changed(spec: str, category: str, missing: int) -> ObjectSetError:
    return ObjectSetError(
        f"{missing} of the pictures of {category!r} that the network was trained on are not in "
        f"{spec!r} any more; expected the set as it was then: restore it"
    )


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
    past: Past,
) -> tuple[str, ...]:
    phase = curriculum.phases[index]
    path = ("phase", index, "categories")
    if phase.same_categories_as is not None:
        other = next(each for each in resolved if each.name == phase.same_categories_as)
        if set_name(other.phase.objects) != set_name(phase.objects):
            raise curriculum.error(
                ("phase", index, "same_categories_as"),
                f"{other.name!r} has {other.phase.objects!r}, this phase {phase.objects!r}; "
                "expected the same objects",
            )
        return other.categories
    used = {
        category: other.name
        for other in resolved
        if set_name(other.phase.objects) == set_name(phase.objects)
        for category in other.categories
    }
    before = past.classes.get(set_name(phase.objects), ())
    wanted = phase.categories
    if isinstance(wanted, int):
        left = [name for name in order if name not in used and name not in before]
        if wanted > len(left):
            n_used = len({*used, *before} & set(order))
            gone = f", of which {n_used} have been trained on" if n_used else ""
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
        if name in before and not isinstance(wanted, tuple):
            raise curriculum.error(
                path,
                f"{name!r} is a class that {past.source} has been trained on, and so not new; name "
                "the classes one by one if it is meant",
            )
    if not chosen:
        raise curriculum.error(path, "no class is asked for; expected 1 or more")
    return chosen


def _resolve_phase(
    curriculum: Curriculum,
    index: int,
    categories: tuple[str, ...],
    data_dir: Path | None,
    past: Past,
    loaded: dict[Any, ObjectSet],
) -> ResolvedPhase:
    phase, canvas = curriculum.phases[index], curriculum.canvas
    exemplar_seed = curriculum.seed + phase.seed
    if exemplar_seed < 0:
        raise curriculum.error(
            ("phase", index, "seed"), "is below 0 with the curriculum's; raise it"
        )
    try:
        train, held_out, stale = load_phase_objects(
            phase.objects, canvas, categories=categories, train=phase.exemplars.train,
            held_out=phase.exemplars.held_out, seed=exemplar_seed, split=phase.split,
            data_dir=data_dir, past=past, loaded=loaded,
        )  # fmt: skip
    except ElsewhereError as error:
        raise curriculum.error(("phase", index, "exemplars"), error) from error
    axes = phase.drawn_axes
    try:
        variants = vary(train, axes.names, axes.positions.tolist())
        window = window_of(variants, canvas, axes.names)
    except ElsewhereError as error:
        raise curriculum.error(("phase", index, "axes"), error) from error
    try:
        placement = place_objects(
            phase.environment,
            window,
            n_classes=len(categories),
            n_exemplars=phase.exemplars.train,
            phase=phase.name,
            exemplar_seed=exemplar_seed,
            drawn=draw_location(canvas, curriculum.seed),
        )
    except ElsewhereError as error:
        raise curriculum.error(("phase", index, "environment"), error) from error
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
    return ResolvedPhase(
        index, phase, steps, categories, train, held_out, placement, tuple(variants), checkpoints,
        _previous(curriculum, index), exemplar_seed, past, stale,
        past.adding((train, *variants), phase.objects, canvas, f"phase {phase.name!r}"),
    )  # fmt: skip


def place_objects(
    environment: str,
    window: Canvas,
    *,
    n_classes: int,
    n_exemplars: int,
    phase: str,
    exemplar_seed: int,
    drawn: Location,
) -> Placement:
    """Return where a phase places its objects; see :func:`make_placement` for what is refused."""
    return make_placement(
        environment,
        window,
        n_classes=n_classes,
        n_exemplars=n_exemplars,
        seed=derive_seed(exemplar_seed, "places", phase),
        drawn=drawn,
    )


def _previous(curriculum: Curriculum, index: int) -> int | None:
    """Return the phase from whose end a phase starts."""
    after = curriculum.phases[index].after
    if after is None:
        return index - 1 if index else None
    names = [phase.name for phase in curriculum.phases]
    return None if after == "none" else names.index(after)

"""The story of a report: one section for each question, in the order in which a reader asks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from elsewhere.analyzer import describe_methods
from elsewhere.analyzer.track_summary import join_seeds
from elsewhere.errors import InputError
from elsewhere.figures import (
    draw,
    plot_accuracy_maps,
    plot_acquisition,
    plot_claims,
    plot_layerwise_change,
)
from elsewhere.forms import network_name, weights_name
from elsewhere.report.material import Item, Material, Recorded
from elsewhere.report.parts import UNFIT, Number, NumberTable, Section, because, called, number
from elsewhere.types import stem_of

MOST_FIGURES = 8
"""A section has so many figures, at most; it says how many more results there are."""
_WHERE = ("on", "off", "far")
FOLDED = 12
"""A table with more rows is folded."""


def tell(material: Material) -> list[Section]:
    """Return the sections of the story, not finished; one that has nothing to say is left out."""
    told = [
        _shown(material),
        _accuracy(material),
        _where(material),
        _drives(material),
        _acquired(material),
        _claims(material),
        _made(material),
    ]
    return [each for each in told if each is not None]


def fitting(material: Material) -> Material:
    """Return what can be told; of results that are not as they are expected, it is said why not."""
    kept: list[Item] = []
    problems = list(material.problems)
    for item in material.items:
        try:
            tell(replace(material, items=(item,), recordings=(), problems=()))
        except UNFIT as error:
            problems.append(f"{item.path} in {item.directory} was left out: {because(error)}")
        else:
            kept.append(replace(item, number=len(kept)))
    if not kept and not material.recordings:
        raise InputError(f"no result can be told of: {problems[0]}")
    return replace(material, items=tuple(kept), problems=tuple(problems))


def _shown(material: Material) -> Section:
    section = Section("shown", "What was shown to which network?")
    section.words.append(
        "An object is shown at every location of a canvas. Each row is a network and a set of "
        "objects of which the results below speak. Sizes are in pixels (px)."
    )
    rows: dict[tuple[str, ...], int] = {}
    shown: list[Item | Recorded] = [*material.items, *material.recordings]
    for item in shown:
        facts = item.attributes
        if "canvas" not in facts or (isinstance(item, Item) and item.kind == "comparison"):
            continue  # what is compared has results of its own
        sizes = item.result.sizes if isinstance(item, Item) else item.sizes
        grid = " x ".join(str(sizes[d]) for d in "yx" if d in sizes)
        background = facts.get("background")
        row = (
            *([item.directory] if len(material.directories) > 1 else []),
            network_name(facts) or "not named",
            item.condition or weights_name(facts),
            f"{facts['canvas']} px",
            _objects(facts, sizes),
            f"{facts.get('object_size', '?')} px",
            grid or "none",
            ", ".join(map(str, background)) if isinstance(background, list) else "",
        )
        rows[row] = rows.get(row, 0) + 1
    head = [
        *(["directory"] if len(material.directories) > 1 else []),
        *("network", "condition or weights", "canvas", "objects", "object size", "locations"),
        *("background", "results"),
    ]
    table = [(*row, str(count)) for row, count in sorted(rows.items())]
    section.tables.append(NumberTable("Networks and objects", head, table, len(table) > FOLDED))
    return section


def _objects(facts: Mapping[str, Any], sizes: Mapping[Any, int]) -> str:
    """Return the name of a set of objects and how many there are, as far as they are known."""
    name, count = str(facts.get("object_set") or ""), facts.get("n_objects")
    if count is None:
        count = sizes.get("object", sizes.get("left_out"))
    if count is None:
        return name or "not kept"
    return f"{name} ({count} object{'s' * (count != 1)})".strip()


def _accuracy(material: Material) -> Section | None:
    items = material.of_kind("accuracy")
    if not items:
        return None
    section = Section("accuracy", "Can it recognise objects elsewhere?")
    section.words.append(
        "Accuracy is the share of objects that are classified correctly, as a mean over classes. "
        "II_far compares places far from where the network was trained (at least one object size "
        "away) with the trained place: 1 says that objects are recognised there as well as at the "
        "trained place, 0 that they are recognised no better than by chance. It is undefined "
        "where the objects were not learnt at the trained place. “Same” exemplars were trained "
        "on; “held-out” ones are new exemplars of the trained classes."
    )
    several = len(material.directories) > 1
    for what, group in _groups(items):
        maps = {called(item, directories=several): item.result for item in _first_seed(group)}
        for exemplars in ("same", "held-out"):
            section.draw(
                partial(plot_accuracy_maps, maps, exemplars=exemplars),
                f"Maps of accuracy over the canvas, {exemplars} exemplars: one for each of "
                f"{', '.join(maps)}. The table below has the means.",
                _of_seed(f"accuracy on {exemplars} exemplars, {what}", group),
            )
        section.tables.append(_accuracy_table(what, group, several))
    section.doubts(*items)
    return section


def _accuracy_table(what: str, group: Sequence[Item], several: bool) -> NumberTable:
    rows: list[list[str | Number]] = []
    for item in group:
        kinds = [str(kind) for kind in item.result["exemplars"].values]
        if not {"accuracy_at", "II_far"} <= set(item.result.data_vars):
            continue  # of versions before there were such means
        for index, kind in enumerate(kinds):
            cells = [
                number(item, "accuracy_at", {"exemplars": index, "where": place})
                for place in range(len(_WHERE))
            ]
            index_far = number(item, "II_far", {"exemplars": index})
            rows.append([called(item, directories=several), kind, *cells, index_far])
    head = ["run", "exemplars", *(f"accuracy {each}" for each in _WHERE), "II_far"]
    return NumberTable(f"Accuracy and II_far: {what}", head, rows, len(rows) > FOLDED)


def _where(material: Material) -> Section | None:
    items = material.of_kind("similarity")
    if not items:
        return None
    section = Section("layers", "Where in the network does the code become invariant?")
    section.words.append(
        "G compares the code of an object elsewhere with that of another object there: 1 says that "
        "the code is the same wherever the object stands and tells objects apart, 0 that it is no "
        "more like itself than like another object. The similarity alone is no evidence: after "
        "rectification any two codes look alike, so that the baseline is drawn beside it."
    )
    several = len(material.directories) > 1
    for what, group in _groups(items):
        firsts = _first_seed(group)
        pairs = {item.condition: item for item in firsts}
        if not several and {"vanilla", "acquired"} <= set(pairs):
            before, after = (pairs[name].result for name in ("vanilla", "acquired"))
            section.draw(
                partial(plot_layerwise_change, before, after, labels=("vanilla", "acquired")),
                f"Similarity, its baseline and G by layer of {what}, vanilla and acquired. The "
                "table below has the values of G.",
                _of_seed(f"similarity by layer, {what}", group),
            )
        else:
            _draw_each(section, firsts, several, f"by layer, {what}")
        section.tables += _layer_tables(what, group, several)
    section.doubts(*items)
    return section


def _layer_tables(what: str, group: Sequence[Item], several: bool) -> Iterator[NumberTable]:
    by_layers: dict[tuple[str, ...], list[Item]] = {}
    for item in group:
        name = f"{stem_of(item.attributes)}_G_away"
        if name in item.result:
            layers = tuple(map(str, item.result["layer"].values))
            by_layers.setdefault((name, *layers), []).append(item)
    for (name, *named), items in by_layers.items():
        rows = [
            [called(item, directories=several)]
            + [number(item, name, {"layer": index}) for index in range(len(named))]
            for item in items
            if item.result[name].dims == ("layer",)
        ]
        caption = f"G by layer, mean over all locations but the reference: {what}"
        yield NumberTable(caption, ["run", *named], rows, len(rows) > FOLDED)


def _drives(material: Material) -> Section | None:
    told = {"accuracy", "similarity", "track", "claims"}
    items = [item for item in material.items if item.kind not in told]
    if not items:
        return None
    section = Section("drives", "What drives it?")
    section.words.append(
        "These results look at causes: whether maps move with the object (equivariance), what of "
        "an object is lost or only hidden, how variance is shared between objects and places, what "
        "linear probes can read, and on which pixels an output depends (attribution)."
    )
    several = len(material.directories) > 1
    firsts = [item for _, group in _groups(items) for item in _first_seed(group)]
    _draw_each(section, firsts, several, "")
    section.doubts(*items)
    return section


def _acquired(material: Material) -> Section | None:
    items = material.of_kind("track")
    if not items:
        return None
    section = Section("training", "How was it acquired, and when was it lost?")
    section.words.append(
        "Each checkpoint of a run was measured: accuracy at the trained location and elsewhere, "
        "and G in each layer. The explorer above shows the same checkpoints as maps, with a "
        "slider."
    )
    several = len(material.directories) > 1
    for _, group in _groups(items):
        firsts = _first_seed(group)
        for item in firsts[:MOST_FIGURES]:
            name = f"{called(item, directories=several)}, checkpoint by checkpoint"
            tracks = [each.result for each in group if _of_run(each) == _of_run(item)]
            text = f"Accuracy and G by layer over the training steps of {name}."
            if len(tracks) > 1 and _one_phase(tracks):
                seeds = f"mean and 95 % interval over {len(tracks)} seeds"
                name = f"{item.condition or item.what}, checkpoint by checkpoint; {seeds}"
                section.draw(partial(_plot_joined, tracks), text, name)
            else:
                section.draw(partial(plot_acquisition, item.result), text, name)
        _say_left_out(section, len(firsts) - MOST_FIGURES)
    section.doubts(*items)
    return section


def _plot_joined(tracks: Sequence[xarray.Dataset]) -> Figure | Axes:
    return plot_acquisition(join_seeds(tracks))


def _claims(material: Material) -> Section | None:
    items = material.of_kind("claims")
    if not items:
        return None
    section = Section("claims", "Which of the paper's claims hold here?")
    section.words.append(
        "Each row is a statistic with its 95 % interval over seeds and the threshold that was "
        "fixed before. A claim holds, or fails, only where the whole interval lies on one side of "
        "the threshold; with one seed it is shown in this run or not, which is no verdict."
    )
    several = len(material.directories) > 1
    names = [item.directory if several else item.path for item in items]
    if any(verdicts := [_verdicts(item) for item in items]):
        claims = dict.fromkeys(claim for held in verdicts for claim in held)
        table = [[claim, *(held.get(claim, "not asked") for held in verdicts)] for claim in claims]
        head = ["claim", *(names if len(items) > 1 else ["verdict"])]
        section.tables.append(NumberTable("Verdict on each claim", head, table))
    for item in items:
        result = item.result
        deciding = result.isel(claim=np.flatnonzero(result["counts"].values))
        name = item.directory if several else str(item.attributes.get("system", ""))
        section.draw(
            partial(plot_claims, deciding),
            f"Each deciding statistic of the claims, its interval and its threshold: {name}. The "
            "table below has the numbers.",
            f"claims: {name}",
        )
        section.tables += [_claims_table(item, name, deciding=each) for each in (True, False)]
    section.doubts(*items)
    return section


def _verdicts(item: Item) -> dict[str, str]:
    """Return what is said of each claim; the attribute may be JSON, as files of it hold it."""
    summary = item.attributes.get("summary")
    held = json.loads(summary) if isinstance(summary, str) else summary
    return {str(claim): str(verdict) for claim, verdict in held.items()} if held else {}


def _claims_table(item: Item, name: str, *, deciding: bool) -> NumberTable:
    result = item.result
    seeds = [str(seed) for seed in result["seed"].values]
    notes: dict[str, int] = {}
    rows: list[list[str | Number]] = []
    for row in range(result.sizes["claim"]):
        at = result.isel(claim=row)
        if bool(at["counts"].item()) != deciding:
            continue
        said = [
            str(at[key].item()) if key in at.coords else ""
            for key in ("claim", "part", "pair", "exemplars")
        ]
        places = range(len(seeds))
        rows.append(
            [
                " ".join(said[:2]),
                *said[2:],
                number(item, "value", {"claim": row}),
                f"{at['direction'].item()} {float(at['threshold'].item()):.2f}",
                str(at["verdict"].item()),
                *(number(item, "seeds", {"claim": row, "seed": place}) for place in places),
                _numbered(str(at["note"].item()) if "note" in at else "", notes),
            ]
        )
    head = ["statistic", "pair", "exemplars", "value", "holds when", "verdict"]
    head += [*(f"seed {seed}" for seed in seeds), "note"]
    what = "Claims" if deciding else "Beside the claims, deciding nothing"
    return NumberTable(f"{what}: {name}", head, rows, folded=not deciding, notes=list(notes))


def _numbered(note: str, notes: dict[str, int]) -> str:
    """Return the number of a note below a table, where each stands once."""
    return f"note {notes.setdefault(note, len(notes) + 1)}" if note else ""


def _made(material: Material) -> Section:
    section = Section("made", "How was all this made?")
    section.words.append(
        "Every number of this page, clicked or focused, says from which file it comes. "
        "The command “elsewhere check” reads a random part of them again from the files and says "
        "how many are equal."
    )
    rows = [
        (
            f"{item.directory}/{item.path}",
            item.kind,
            item.condition,
            item.seed,
            item.made_by,
            item.sha256,
        )
        for item in material.items
    ]
    rows += [
        (
            f"{each.directory}/{each.path}",
            "recording",
            each.condition,
            "",
            each.made_by,
            each.sha256,
        )
        for each in material.recordings
    ]
    head = ("file", "kind", "run", "seed", "made by", "SHA-256")
    section.tables.append(NumberTable("Files", head, rows, folded=True))
    section.notes += material.problems
    texts: dict[str, Item] = {}
    for item in material.items:
        texts.setdefault(item.kind, item)
    listing = []
    for kind, item in texts.items():
        try:
            listing.append(f"{kind} ({item.path})\n\n{describe_methods(item.result)}")
        except UNFIT as error:
            section.notes.append(f"no methods section of {item.path}: {because(error)}")
    section.listing = "\n\n".join(listing)
    return section


# --- groups of results ------------------------------------------------------------------------


def _groups(items: Sequence[Item]) -> Iterator[tuple[str, list[Item]]]:
    """Yield results that differ in directory, condition and seed only, by what they are of."""
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(item.what, []).append(item)
    yield from found.items()


def _of_run(item: Item) -> tuple[str, str]:
    return item.directory, item.condition or item.what


def _one_phase(tracks: Sequence[xarray.Dataset]) -> bool:
    """Return whether tracks are all of the same phase and measure, and can be put together."""
    named = {(*map(str, track["phase"].values), stem_of(dict(track.attrs))) for track in tracks}
    phases = {each for name in named for each in name[:-1]}
    layers = {tuple(map(str, track["layer"].values)) for track in tracks}
    alike = {name[-1] for name in named} == {"cosine"} and len(layers) == 1
    return alike and len(phases) == 1 and all("seed" in track.attrs for track in tracks)


def _first_seed(group: Sequence[Item]) -> list[Item]:
    """Return of each directory and condition the result of the first seed."""
    found: dict[tuple[str, str], Item] = {}
    for item in group:
        found.setdefault(_of_run(item), item)
    return list(found.values())


def _of_seed(caption: str, group: Sequence[Item]) -> str:
    seeds = list(dict.fromkeys(item.seed for item in group if item.seed))
    if len(seeds) < 2:
        return caption
    return f"{caption}; seed {seeds[0]} of {len(seeds)} (the others are in the table)"


def _draw_each(section: Section, items: Sequence[Item], several: bool, what: str) -> None:
    for item in items[:MOST_FIGURES]:
        name = f"{called(item, directories=several)} {what or item.what}"
        make: Callable[[], Figure | Axes] = partial(draw, item.result)
        section.draw(make, f"The figure of {item.kind} of {name}.", f"{item.kind}: {name}")
    _say_left_out(section, len(items) - MOST_FIGURES)


def _say_left_out(section: Section, more: int) -> None:
    if more > 0:
        section.notes.append(
            f"{more} more results have no figure here; `elsewhere figure` draws each, and the "
            "explorer shows those over places"
        )

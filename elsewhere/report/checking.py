"""Checking a report: numbers of the page are read again from the data, and computed anew."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.analyzer.factors import formed
from elsewhere.errors import ElsewhereError, InputError, StorageError
from elsewhere.forms import label, layer_labels
from elsewhere.report.factors import kept_rows, unit_codes
from elsewhere.report.fields import PLACE
from elsewhere.report.frames import MAPS, MAPS_AT_REFERENCE, pixel
from elsewhere.report.material import digest_of
from elsewhere.report.packing import (
    BITS,
    INDEX,
    Packed,
    data_name,
    error_at,
    read_data,
    unpack,
)
from elsewhere.report.recomputing import recomputed
from elsewhere.report.texts import seen
from elsewhere.storage import Recording, load_result
from elsewhere.storage.files import is_file, is_folder

ROUNDING = 1e-9
"""Beside the error of the page's integers, sums may differ by so much."""
SINGLE = 1e-6
"""Beside the error of a factor: its largest is found in float32, over all pairs of codes."""


@dataclass(frozen=True)
class Drawn:
    """A number of the page: of which file, which variable and where in it, and what it is there.

    `end` is that of an interval; `block` the side of the squares that a map's pixels are of.
    """

    file: int
    variable: str
    at: Mapping[str, int]
    value: float
    error: float
    end: str = ""
    block: int = 0


@dataclass(frozen=True)
class Checked:
    """What became of the numbers that were drawn.

    `equal` are in the files as they are on the page, `computed` of them were also computed anew
    from what they are made of. `different` are sentences about all others.
    """

    drawn: int
    equal: int
    computed: int
    different: tuple[str, ...]


@dataclass
class _Page(HTMLParser):
    """Collects the data of a page: its catalogue, its arrays, and the numbers in its text."""

    folder: Path | None = None
    split: bool = False
    texts: dict[str, str] = field(default_factory=dict)
    numbers: list[dict[str, Any]] = field(default_factory=list)
    _inside: str = ""
    _loaded: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self._inside = str(named.get("id") or "") if tag == "script" else ""
        self.split |= self._inside == "catalogue" and "data-mark" in named
        if tag == "button" and (evidence := named.get("data-evidence")):
            self.numbers.append(json.loads(evidence))

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[self._inside] = self.texts.get(self._inside, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def values(self, file: Mapping[str, Any], facts: Mapping[str, Any]) -> NDArray[np.float64]:
        """Return an array of a file, from the page or from the file of data beside it."""
        number, block = int(file["number"]), f"block-{facts['block']}"
        if self.folder is not None and number not in self._loaded:
            self._loaded.add(number)
            script = (self.folder / data_name(number)).read_text(encoding="utf-8")
            self.texts |= read_data(script, number)
        bits = facts.get("bits", BITS)
        return unpack(
            Packed(
                tuple(facts["shape"]), facts["scale"], facts["offset"], facts["error"],
                self.texts[block], bits,
            )
        )  # fmt: skip


def check_report(
    path: str | Path, data: Sequence[str | Path], *, numbers: int = 100, seed: int = 0
) -> Checked:
    """Read a random part of a report's numbers again from the data that it was made from.

    Parameters
    ----------
    path
        The report.
    data
        Its directories, in the order in which they were given when it was made.
    numbers
        How many are drawn: half of them from the text, as far as it has so many, the others from
        the arrays of the explorer.
    seed
        Of the draw.

    Returns
    -------
    Checked
        How many were equal. A file that is missing or has other bytes makes its numbers different.

    Raises
    ------
    InputError
        No report of this package, or another number of directories than it has.
    StorageError
        A file or directory is missing.
    """
    page, catalogue = _read(Path(path))
    folders = [Path(each) for each in data]
    names = catalogue["directories"]
    if len(folders) != len(names):
        raise InputError(
            f"{path} was made from {len(names)} directories ({', '.join(names)}); got "
            f"{len(folders)}: give --data for each, in that order"
        )
    for folder in folders:
        if not is_folder(folder):
            raise StorageError(f"{folder} is not a directory; name the one that holds the data")
    if numbers < 1:
        raise InputError(f"expected 1 number or more; got {numbers}")
    try:
        chosen = _draw(page, catalogue, numbers, np.random.default_rng(seed))
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read whole: {error}; make it again with `elsewhere report`"
        ) from error
    if not chosen:
        raise InputError(f"{path} holds no number that comes from a file")
    places = dict(zip(names, folders, strict=True))
    return _compare(chosen, catalogue["files"], places)


def _read(path: Path) -> tuple[_Page, dict[str, Any]]:
    folder = path if is_folder(path) else path.parent
    path = path / INDEX if is_folder(path) else path
    if not is_file(path):
        raise StorageError(f"{path} does not exist; name a report that `elsewhere report` wrote")
    page = _Page()
    try:
        page.feed(path.read_text(encoding="utf-8"))
        catalogue = json.loads(page.texts["catalogue"])
        if not isinstance(catalogue["files"], list):
            raise TypeError("no list of files")
        page.folder = folder if page.split else None
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read as a report of this package: {error}; make it again with "
            "`elsewhere report`"
        ) from error
    return page, catalogue


def _draw(
    page: _Page, catalogue: Mapping[str, Any], count: int, rng: np.random.Generator
) -> list[Drawn]:
    arrays = [
        (file, field, packed, end)
        for file in catalogue["files"]
        for field in (*file["fields"], *_maps(file))
        for end, packed in (("", field["values"]), *_ends(field))
    ]
    told = min(len(page.numbers), count // 2 if arrays else count)
    picked = rng.permutation(len(page.numbers))[:told].tolist()
    found = [_told(page.numbers[place]) for place in picked]
    if not arrays:
        return found
    # A field that is formed for each reference counts as often as one of a single reference, and a
    # map as often as a number.
    sizes = np.array(
        [
            math.prod(packed["shape"][: -2 if {"formed", "block"} & set(known) else None])
            for _, known, packed, _ in arrays
        ],
        dtype=float,
    )
    for which in rng.choice(len(arrays), count - told, p=sizes / sizes.sum()):
        file, known, packed, end = arrays[which]
        index = tuple(int(rng.integers(size)) for size in packed["shape"])
        kept = file.get("kept", {})  # places of the file that a thinned page has
        at = {
            dim: int(kept[dim][place]) if dim in kept else place
            for dim, place in zip(known["dims"], index, strict=True)
        }
        if known.get("formed"):
            value, error = _formed(page, file, known["name"], at)
        else:
            values = page.values(file, packed)
            value = float(values[index])
            error = error_at(packed, value)
        block = known.get("block", 0)
        found.append(Drawn(file["number"], known["name"], at, value, error, end, block))
    return sorted(found, key=lambda drawn: (drawn.file, drawn.at.get("layer", 0)))


def _formed(
    page: _Page, file: Mapping[str, Any], name: str, at: Mapping[str, int]
) -> tuple[float, float]:
    """Return a number as the page forms it from a factor, and its error."""
    factor = file["factors"][at.get("checkpoint", 0) * len(file["axes"]["layer"]) + at["layer"]]
    codes = page.values(file, factor)
    sides = [len(file["axes"][dim]) for dim in ("y", "x")]
    error = factor["error_of_g"] if name == "cosine_G" else factor["cosines_error"]
    value = _pick(codes, np.array(file["categories"]), sides, name, at)
    return value, (error or 0.0) + SINGLE


def _pick(
    codes: NDArray[Any],
    categories: NDArray[np.int64],
    sides: Sequence[int],
    name: str,
    at: Mapping[str, int],
) -> float:
    """Return one number of those that are formed from codes, (object, place, unit)."""
    place, reference = (
        int(np.ravel_multi_index((at[f"{which}y"], at[f"{which}x"]), sides))
        for which in ("", "reference_")
    )
    values = formed(codes, categories, reference)[name][..., place]
    return float(values[at["object"]] if "object" in at else values)


def _ends(known: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(end, known[end]) for end in ("low", "high") if end in known]


def _maps(file: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the maps in the object's frame as fields."""
    held = file.get("frames")
    if not held:
        return
    for key, name in (("values", MAPS), ("reference", MAPS_AT_REFERENCE)):
        if key in held:
            dims = [dim for dim in held["dims"] if key == "values" or dim not in PLACE]
            yield {"name": name, "dims": dims, "values": held[key], "block": held["block"]}


def _told(evidence: Mapping[str, Any]) -> Drawn:
    value = float(evidence["exact"])
    return Drawn(evidence["file"], evidence["variable"], evidence["at"], value, 0.0)


def _compare(
    chosen: Sequence[Drawn], files: Sequence[Mapping[str, Any]], places: Mapping[str, Path]
) -> Checked:
    known = {file["number"]: file for file in files}
    results: dict[int, _Opened] = {}
    equal = computed = 0
    different: list[str] = []
    for drawn in chosen:
        file = known[drawn.file]
        if drawn.file not in results:
            results[drawn.file] = _load(file, places)
        result = results[drawn.file]
        where = f"{drawn.variable} of {file['path']}"
        if isinstance(result, str):
            different.append(f"{where}: {result}")
            continue
        there = _value(result, drawn)
        if there is None or not _same(drawn.value, there, drawn.error):
            different.append(f"{where}: {drawn.value} on the page, {there} in the file")
            continue
        if isinstance(result, _Codes | _Factors):
            anew: float | None = there
        else:
            single = drawn.end or drawn.block
            anew = None if single else recomputed(result, drawn.variable, drawn.at)
        if anew is not None and not _same(there, anew, 0.0):
            different.append(f"{where}: {there} in the file, {anew} when computed anew")
            continue
        equal += 1
        computed += anew is not None
    return Checked(len(chosen), equal, computed, tuple(different))


class _Codes:
    """A recording of the data; the codes of the layer that was asked for last are kept."""

    def __init__(self, path: Path, labels: Sequence[str]) -> None:
        self._recording, self._labels = Recording(path), labels
        self._last: tuple[int, NDArray[np.float32]] | None = None

    def value(self, name: str, at: Mapping[str, int]) -> float:
        """Return a cosine or G, formed from the codes themselves."""
        design, layer = self._recording.design, at["layer"]
        if self._last is None or self._last[0] != layer:
            names = {
                seen(label(each.name, each.form)): each.name for each in self._recording.layers
            }
            self._last = layer, unit_codes(self._recording, names[self._labels[layer]])
        return _pick(self._last[1], design.category_codes, design.shape, name, at)


class _Factors:
    """A track of the data, of whose factors numbers are formed."""

    def __init__(self, path: Path, categories: Sequence[int], labels: Sequence[str]) -> None:
        self._result, self._categories = load_result(path), np.array(categories)
        known = [seen(name) for name in layer_labels(self._result)]
        self._layers = [known.index(name) for name in labels]

    def value(self, name: str, at: Mapping[str, int]) -> float:
        """Return a cosine or G, formed from the factor in the file."""
        rows = kept_rows(self._result, at["checkpoint"], self._layers[at["layer"]])
        sides = [self._result.sizes[dim] for dim in PLACE]
        return _pick(rows, self._categories, sides, name, at)


_Opened = xarray.Dataset | _Codes | _Factors | str


def _load(file: Mapping[str, Any], places: Mapping[str, Path]) -> _Opened:
    """Return a result or a recording of the data, or what is wrong with it."""
    folder = places[file["directory"]]
    path = folder / file["path"]
    if not path.resolve().is_relative_to(folder.resolve()):
        return "the page names a file outside the directory"
    try:
        if not is_file(path):
            return "the file is missing"
        if digest_of(path) != file["sha256"]:
            return "the file has other bytes than when the report was made"
        if file["kind"] == "recording":
            return _Codes(path, file["axes"]["layer"])
        if "factors" in file:
            return _Factors(path, file["categories"], file["axes"]["layer"])
        return load_result(path)
    except ElsewhereError as error:
        return str(error)


def _value(result: xarray.Dataset | _Codes | _Factors, drawn: Drawn) -> float | None:
    try:
        if isinstance(result, _Codes | _Factors):
            return result.value(drawn.variable, drawn.at)
        if drawn.block:
            return pixel(result, drawn.variable, drawn.at, drawn.block)
        if not drawn.end:
            return float(result[drawn.variable].isel(dict(drawn.at)).item())
        ends = result[f"{drawn.variable}_interval"].isel(dict(drawn.at))
        return float(ends.sel(bound=drawn.end).item())
    except (KeyError, IndexError, ValueError):
        return None


def _same(one: float, other: float, error: float) -> bool:
    """Return whether two numbers are equal up to a stated error; undefined ones are."""
    if math.isnan(one) or math.isnan(other) or math.isinf(one) or math.isinf(other):
        return one == other or (math.isnan(one) and math.isnan(other))
    return abs(one - other) <= error + ROUNDING * max(1.0, abs(other))

"""The data of a page: one catalogue of results and fields, and their arrays, each once."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.analyzer.factors import NAME
from elsewhere.notes import notes_of
from elsewhere.report.factors import Factor, factors_of, kept_factors
from elsewhere.report.fields import PLACE, PlaceField, axis_labels, fields_of, scene_facts
from elsewhere.report.frames import PIXELS, Frames, frames_of
from elsewhere.report.material import Item, Material, Recorded
from elsewhere.report.packing import BITS, LOST, Packed, pack
from elsewhere.report.parts import UNFIT, because
from elsewhere.report.pictures import Pictures
from elsewhere.report.texts import seen
from elsewhere.report.thinning import arrays_of, thin
from elsewhere.storage import Recording

VERSION = "0.1"


class Catalogue:
    """Collects what the explorer reads.

    Parameters
    ----------
    material
        What the page is made from.
    whole
        Whether nothing is left out, however many bytes the arrays take.
    """

    def __init__(self, material: Material, *, whole: bool = False) -> None:
        self._packed: list[Packed | None] = []
        self.objects: dict[str, dict[str, str]] = {}
        self.notes: list[str] = []
        self._pictures = Pictures(material)
        self.files = [self._file(item) for item in material.items]
        for recorded in material.recordings:
            with contextlib.closing(Recording(recorded.file)) as recording:
                self._add_recording(recording, recorded)
        for item in material.items:
            try:
                self._add_track(item)
            except UNFIT as error:
                self._leave_out(item, error)
        self.directories = material.directories
        if not whole:
            self.notes += thin(self.files, self._packed)

    @property
    def blocks(self) -> dict[int, dict[int, str]]:
        """The arrays as text, by their number, of each file by its own."""
        return {
            file["number"]: {
                array["block"]: held.text
                for array in arrays_of(file)
                if (held := self._packed[array["block"]]) is not None
            }
            for file in self.files
        }

    def facts(self) -> dict[str, Any]:
        """Return the catalogue, as JSON holds it."""
        return {
            "version": VERSION,
            "directories": list(self.directories),
            "files": self.files,
            "pictures": self.objects,
        }

    def _leave_out(self, item: Item, error: Exception) -> None:
        name = f"{item.path} in {item.directory}"
        self.notes.append(f"the explorer lacks numbers of {name}: {because(error)}")

    def put(self, values: ArrayLike, bits: int = BITS) -> dict[str, Any]:
        """Add an array, and return where it stands and how it is read."""
        packed = pack(values, bits, lost=LOST if bits == BITS else math.inf)
        return {"block": self._keep(packed), **packed.facts()}

    def _file(self, item: Item) -> dict[str, Any]:
        fields: list[PlaceField] = []
        maps: list[Frames] = []
        axes: dict[str, list[Any]] = {}
        try:
            fields, maps = list(fields_of(item)), list(frames_of(item))
            named = [*(field.dims for field in fields), *(each.dims for each in maps)]
            dims = [dim for dim in dict.fromkeys(itertools.chain(*named)) if dim not in PIXELS]
            axes = {dim: axis_labels(item.result, dim) for dim in dims}
        except UNFIT as error:
            self._leave_out(item, error)
            fields, maps, dims = [], [], []
        digest = str(item.attributes.get("object_digest", ""))
        if dims and not self.objects.get(digest):
            self.objects[digest] = self._pictures.of(item)
        ids = [str(each) for each in item.result["object"].values] if "object" in dims else []
        return {
            "number": item.number,
            "directory": item.directory,
            "path": item.path,
            "sha256": item.sha256,
            "kind": item.kind,
            "what": item.what,
            "condition": item.condition,
            "seed": item.seed,
            "command": item.made_by,
            "notes": [*item.notes, *(each.note for each in maps)],
            "scene": scene_facts(item.attributes),
            "pictures": digest,
            "ids": ids,
            "axes": axes,
            "fields": [self._field(field) for field in fields],
            **({"frames": self._frames(maps[0])} if maps else {}),
        }

    def _add_recording(self, recording: Recording, recorded: Recorded) -> None:
        """Add a recording's factors, from which the page forms cosines with any reference."""
        design, attributes = recording.design, recorded.attributes
        if design.names != PLACE:
            self.notes.append(
                f"{recorded.path} in {recorded.directory} moves objects along "
                f"{', '.join(design.names)}; only recordings over y and x have a reference of "
                "choice"
            )
            return
        notes = notes_of(recording)
        factors = list(factors_of(recording, notes))
        if not factors:
            return
        digest = str(attributes.get("object_digest", ""))
        self.objects.setdefault(digest, self._pictures.named(digest))
        ids = [str(each) for each in design.objects]
        sides = {axis.name: [int(value) for value in axis.values] for axis in design.axes.moving}
        layers = [each.layer for each in factors]
        shape = [len(layers), len(ids), *design.shape]
        notes += [each.note for each in factors]
        self.files.append(
            {
                "number": len(self.files),
                "directory": recorded.directory,
                "path": recorded.path,
                "sha256": recorded.sha256,
                "kind": "recording",
                "what": f"any reference: {Path(recorded.path).stem}",
                "condition": recorded.condition,
                "seed": "",
                "command": recorded.made_by,
                "notes": notes,
                "scene": scene_facts(
                    {
                        **attributes,
                        **dict(zip(("reference_y", "reference_x"), design.reference, strict=True)),
                    }
                ),
                "pictures": digest,
                "ids": ids,
                "axes": {
                    "layer": layers,
                    "object": ids,
                    **sides,
                    **{f"reference_{name}": values for name, values in sides.items()},
                },
                "categories": [int(code) for code in design.category_codes],
                "factors": self._factors(factors),
                "fields": list(formed_fields(shape, factors)),
            }
        )

    def _add_track(self, item: Item) -> None:
        """Add a track's factors, of its first and last checkpoint."""
        codes = _category_codes(item)
        factors = list(kept_factors(item, codes))
        if not factors:
            return
        (file,) = (file for file in self.files if file["number"] == item.number)
        held = item.result[NAME]
        known = axis_labels(item.result, "checkpoint")
        places = [int(place) for place in item.result[f"{NAME}_checkpoint"].values]
        ids = [str(each) for each in item.result["object"].values]
        sides = {dim: axis_labels(item.result, dim) for dim in PLACE}
        layers = list(dict.fromkeys(each.layer for each in factors))
        checkpoints = [known[place] for place in places]
        notes = [
            f"{name}: {each.note}"
            for name, each in zip(np.repeat(checkpoints, len(layers)), factors, strict=True)
        ]
        digest = str(item.attributes.get("object_digest", ""))
        if not self.objects.get(digest):
            self.objects[digest] = self._pictures.of(item)
        shape = [len(places), len(layers), len(ids), held.sizes["y"], held.sizes["x"]]
        self.files.append(
            {
                **{key: value for key, value in file.items() if key not in ("frames", "kept")},
                "number": len(self.files),
                "what": f"any reference: {item.what}",
                "notes": [*item.notes, *notes],
                "pictures": digest,
                "ids": ids,
                "axes": {
                    "checkpoint": checkpoints,
                    "layer": layers,
                    "object": axis_labels(item.result, "object"),
                    **sides,
                    **{f"reference_{name}": values for name, values in sides.items()},
                },
                "categories": [int(code) for code in codes],
                "factors": self._factors(factors),
                "fields": list(formed_fields(shape, factors)),
            }
        )

    def _factors(self, factors: Sequence[Factor]) -> list[dict[str, Any]]:
        return [
            {
                "layer": each.layer,
                "rms": each.rms,
                "error_of_g": each.error_of_g,
                "cosines_error": each.error,
                "block": self._keep(each.packed),
                **each.packed.facts(),
            }
            for each in factors
        ]

    def _keep(self, packed: Packed) -> int:
        self._packed.append(packed)
        return len(self._packed) - 1

    def _frames(self, frames: Frames) -> dict[str, Any]:
        facts: dict[str, Any] = {"dims": list(frames.dims), "values": self.put(frames.values, 8)}
        if frames.reference is not None:
            facts["reference"] = self.put(frames.reference, 8)
        return {**facts, "block": frames.block, "first": list(frames.first), "of": frames.of}

    def _field(self, field: PlaceField) -> dict[str, Any]:
        facts = field.facts() | {"values": self.put(field.values.values)}
        if field.bounds is not None:
            low, high = field.bounds
            facts |= {"low": self.put(low), "high": self.put(high)}
        if field.away is not None:
            name, means, ends = field.away
            facts["away"] = {"name": name, "values": self.put(means)}
            if ends is not None:
                facts["away"] |= {"low": self.put(ends[0]), "high": self.put(ends[1])}
        return facts


_FORMED = (
    ("cosine_G", "invariance (G), of cosine", "up to 1", "", False),
    (
        "cosine",
        "same object elsewhere: cosine of its code with that at the reference, mean over objects",
        "-1..1",
        "cosine_baseline",
        False,
    ),
    (
        "cosine_baseline",
        "other object elsewhere: cosine of another object's code there with the code at the "
        "reference",
        "-1..1",
        "",
        False,
    ),
    (
        "cosine_each",
        "same object elsewhere: cosine of each object's code with that at the reference",
        "-1..1",
        "cosine_baseline",
        True,
    ),
)


def formed_fields(shape: Sequence[int], factors: Sequence[Factor]) -> Iterator[dict[str, Any]]:
    """Yield the fields that the page forms from factors.

    `shape` is of ([checkpoint,] layer, object, y, x).
    """
    *lead, n_objects, n_rows, n_columns = shape
    sides = [n_rows, n_columns]
    largest = max(each.error for each in factors)
    of_g = max((each.error_of_g for each in factors if not np.isnan(each.error_of_g)), default=0.0)
    for name, long_name, values, baseline, each in _FORMED:
        dims = ["checkpoint", "layer"][-len(lead) :] + (["object"] if each else []) + [*PLACE]
        yield {
            "name": name,
            "dims": [*dims, "reference_y", "reference_x"],
            "baseline": baseline,
            "long_name": long_name,
            "range": values,
            "chance": "0: no more alike than another object" if name == "cosine_G" else "",
            "formula": "",
            "formed": True,
            "values": {
                "shape": [*lead, *([n_objects] if each else []), *sides, *sides],
                "error": of_g if name == "cosine_G" else largest,
            },
        }


def _category_codes(item: Item) -> NDArray[np.int64]:
    """Return the category of each object as a number; each is its own where none is named."""
    result = item.result
    named = "category" if "category" in result.coords else "object"
    if named not in result.coords:
        return np.zeros(0, np.int64)
    values = [str(each) for each in result[named].values]
    order = list(dict.fromkeys(values))
    return np.array([order.index(each) for each in values], dtype=np.int64)


def to_json(value: Any) -> str:
    r"""Return JSON that can stand in an element of a page: no sign of it ends the element.

    Examples
    --------
    >>> to_json({"name": "</script><b>"})
    '{"name": "\\u003c/script\\u003e\\u003cb\\u003e"}'
    """
    text = json.dumps(_plain(value), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _plain(value: Any) -> Any:
    """Return a value without types and numbers that JSON does not know."""
    if isinstance(value, str):
        return seen(value)
    if isinstance(value, dict):
        plain = {seen(str(key)): _plain(each) for key, each in value.items()}
        if plain.get("path", value.get("path")) != value.get("path"):
            plain |= {"path": value["path"], "shown": plain["path"]}  # it is looked for as it is
        return plain
    if isinstance(value, Sequence):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value

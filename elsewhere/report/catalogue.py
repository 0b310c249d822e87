"""The data of a page: one catalogue of results and fields, and their arrays, each once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from elsewhere.notes import notes_of
from elsewhere.report.factors import Factor, factors_of
from elsewhere.report.fields import PLACE, PlaceField, axis_labels, fields_of, scene_facts
from elsewhere.report.material import Item, Material, Recorded
from elsewhere.report.packing import Packed, pack
from elsewhere.report.pictures import Pictures
from elsewhere.storage import Recording

VERSION = "0.1"
MOST_BYTES = 3 * 2**20
"""Arrays that take more, as text, lose the numbers of single objects of all seeds but the first.

The first seed's are left out as well where arrays take four times as much.
"""


class Catalogue:
    """Collects what the explorer reads; `blocks` are the arrays as text, by their number."""

    def __init__(self, material: Material) -> None:
        self.blocks: list[str] = []
        self.objects: dict[str, dict[str, str]] = {}
        self.notes: list[str] = []
        self._pictures = Pictures(material)
        self.files = [self._file(item) for item in material.items]
        for recorded in material.recordings:
            with contextlib.closing(Recording(recorded.file)) as recording:
                self._add_recording(recording, recorded)
        self.directories = material.directories
        self._thin()

    def facts(self) -> dict[str, Any]:
        """Return the catalogue, as JSON holds it."""
        return {
            "version": VERSION,
            "directories": list(self.directories),
            "files": self.files,
            "pictures": self.objects,
        }

    def put(self, values: ArrayLike) -> dict[str, Any]:
        """Add an array, and return where it stands and how it is read."""
        packed = pack(values)
        return {"block": self._keep(packed), **packed.facts()}

    def _file(self, item: Item) -> dict[str, Any]:
        fields = list(fields_of(item))
        dims = list(dict.fromkeys(dim for field in fields for dim in field.dims))
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
            "notes": item.notes,
            "scene": scene_facts(item.attributes),
            "pictures": digest,
            "ids": ids,
            "axes": {dim: axis_labels(item.result, dim) for dim in dims},
            "fields": [self._field(field) for field in fields],
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
        kept = [
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
                "factors": kept,
                "fields": list(formed_fields(shape, factors)),
            }
        )

    def _thin(self) -> None:
        """Leave out numbers of single objects while there are too many bytes, and say so."""
        seen: dict[tuple[str, ...], int] = {}
        ranked = []
        for file in self.files:
            key = tuple(file[name] for name in ("directory", "what", "condition"))
            seen[key] = seen.get(key, 0) + 1
            ranked.append((seen[key], file))
        left = sum(map(len, self.blocks))
        for rank, file in sorted(ranked, key=lambda each: -each[0]):
            if left <= (MOST_BYTES if rank > 1 else 4 * MOST_BYTES):
                return
            single = [
                field
                for field in file["fields"]
                if "object" in field["dims"] and not field.get("formed")
            ]
            if not single or len(single) == len(file["fields"]):
                continue
            file["fields"] = [field for field in file["fields"] if field not in single]
            for field in single:
                for packed in filter(None, map(field.get, ("values", "low", "high"))):
                    left -= len(self.blocks[packed["block"]])
                    self.blocks[packed["block"]] = ""
            names = ", ".join(field["name"] for field in single)
            file["notes"] = [
                *file["notes"],
                f"numbers of single objects ({names}) are left out of this page, which would be "
                "too large; they are in the file",
            ]

    def _keep(self, packed: Packed) -> int:
        self.blocks.append(packed.text)
        return len(self.blocks) - 1

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
    """Yield the fields that the page forms from factors; `shape` is of layer, object, y and x."""
    largest = max(each.error for each in factors)
    of_g = max((each.error_of_g for each in factors if not np.isnan(each.error_of_g)), default=0.0)
    for name, long_name, values, baseline, each in _FORMED:
        dims = ["layer", *(["object"] if each else []), "y", "x"]
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
                "shape": [*(shape if each else (shape[0], *shape[2:])), *shape[2:]],
                "error": of_g if name == "cosine_G" else largest,
            },
        }


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
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value

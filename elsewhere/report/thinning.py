"""A page that would be too large is thinned, step by step, and says what is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from elsewhere.report.packing import Packed

FEW_BYTES = 3 * 2**20
"""Arrays that take more, as text, lose of all seeds but the first what is largest in them."""
SOME_BYTES = 6 * 2**20
"""Arrays that take more lose factors of tracks, the last ones first."""
MOST_BYTES = 12 * 2**20
"""Arrays never take more: what else is left out is said at `thin`."""

_REMEDY = "`elsewhere report --split` writes a folder with all of it"


def thin(files: Sequence[dict[str, Any]], packed: list[Packed | None]) -> list[str]:
    """Leave parts of the arrays out while they take too many bytes; notes of the files say which.

    Returns sentences on what has no file's notes to stand in.

    Above `FEW_BYTES` later seeds lose maps in the object's frame, factors for a reference of choice
    and the numbers of single objects, above `SOME_BYTES` the first one loses the factors of its
    tracks. Above `MOST_BYTES` it loses the rest of these as well, then every second checkpoint is
    left out, and at last recordings' factors and every measure but G and the accuracy.

    Parameters
    ----------
    files
        Of the catalogue, which are changed.
    packed
        Its arrays by their numbers; those that are left out become None.
    """
    left = sum(len(each.text) for each in packed if each is not None)
    notes: list[str] = []
    ranked = list(_ranked(files))
    form = partial(_formed, notes=notes)

    def drop(arrays: Iterator[Mapping[str, Any]]) -> None:
        nonlocal left
        for array in arrays:
            held = packed[array["block"]]
            if held is not None:
                left -= len(held.text)
                packed[array["block"]] = None

    firsts = [file for rank, file in ranked if rank == 1]
    for file in (file for rank, file in ranked if rank > 1):
        for leave in (_frames, form, _single):
            if left > FEW_BYTES:
                drop(leave(file))
    for file in firsts:
        if file["kind"] == "track" and "factors" in file and left > SOME_BYTES:
            drop(form(file))
    for file in firsts:
        for leave in (_frames, _single):
            if left > MOST_BYTES:
                drop(leave(file))
    for _, file in ranked:
        while left > MOST_BYTES and len(file["axes"].get("checkpoint", ())) > 2:
            left -= _halve(file, packed)
    for leave in (form, _measures):
        for _, file in ranked:
            if left > MOST_BYTES:
                drop(leave(file))
    return notes


def _ranked(files: Sequence[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield files with the rank of their seed, the last ones first, and large before small."""
    seen: dict[tuple[str, ...], int] = {}
    ranked: list[tuple[int, int, int, dict[str, Any]]] = []
    for file in files:
        key = tuple(file[name] for name in ("directory", "what", "condition"))
        seen[key] = seen.get(key, 0) + 1
        values = sum(_size(array) for array in arrays_of(file))
        ranked.append((-seen[key], -values, len(ranked), file))
    for rank, _, _, file in sorted(ranked, key=lambda each: each[:3]):
        yield -rank, file


def _size(array: Mapping[str, Any]) -> int:
    size = 1
    for count in array["shape"]:
        size *= count
    return size


def arrays_of(file: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield where the arrays of a file of the catalogue stand."""
    yield from file.get("factors", ())
    yield from (array for array, _ in _of_frames(file))
    for field in file["fields"]:
        yield from (array for array, _ in _of_field(field))


def _of_field(field: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Yield the arrays of a field, with their dimensions."""
    if field.get("formed"):
        return
    without = [dim for dim in field["dims"] if dim not in ("y", "x")]
    for held, dims in ((field, field["dims"]), (field.get("away", {}), without)):
        for name in ("values", "low", "high"):
            if name in held:
                yield held[name], dims


def _of_frames(file: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], list[str]]]:
    frames = file.get("frames")
    if frames:
        yield frames["values"], frames["dims"]
        if "reference" in frames:
            yield frames["reference"], [dim for dim in frames["dims"] if dim not in ("y", "x")]


def _say(file: dict[str, Any], what: str) -> None:
    file["notes"] = [
        *file["notes"],
        f"{what} left out of this page, which would be too large; they are in the file, and "
        f"{_REMEDY}",
    ]


def _frames(file: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Leave out the maps in the object's frame."""
    found = [array for array, _ in _of_frames(file)]
    if found:
        del file["frames"]
        _say(file, "maps in the object's frame are")
    yield from found


def _formed(file: dict[str, Any], notes: list[str]) -> Iterator[Mapping[str, Any]]:
    """Leave out what a reference of choice is formed from."""
    if "factors" not in file:
        return
    yield from file.pop("factors")
    file["fields"] = []
    of = ", ".join(filter(None, (file["condition"], file["seed"] and f"seed {file['seed']}")))
    notes.append(
        f"“{file['what']}”{of and f' of {of}'} is left out of this page, which would be too large; "
        f"{_REMEDY}"
    )


def _single(file: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Leave out numbers of single objects, where there are others."""
    if "factors" in file:
        return
    single = [field for field in file["fields"] if "object" in field["dims"]]
    if not single or len(single) == len(file["fields"]):
        return
    file["fields"] = [field for field in file["fields"] if field not in single]
    names = ", ".join(field["name"] for field in single)
    _say(file, f"numbers of single objects ({names}) are")
    for field in single:
        yield from (array for array, _ in _of_field(field))


def _measures(file: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Leave out every measure but G, the accuracy, or the first where there is neither."""
    fields = file["fields"]
    kept = [each for each in fields if each["name"].endswith("_G") or each["name"] == "accuracy"]
    gone = [field for field in fields if field not in (kept or fields[:1])]
    if not gone:
        return
    file["fields"] = [field for field in file["fields"] if field not in gone]
    _say(file, f"{', '.join(field['name'] for field in gone)} are")
    for field in gone:
        yield from (array for array, _ in _of_field(field))


def _halve(file: dict[str, Any], packed: list[Packed | None]) -> int:
    """Leave out every second checkpoint, but not the last; return how many bytes that saves."""
    labels = file["axes"]["checkpoint"]
    places = sorted({*range(0, len(labels), 2), len(labels) - 1})
    before = file.setdefault("kept", {}).get("checkpoint", range(len(labels)))
    file["kept"]["checkpoint"] = [before[place] for place in places]
    file["axes"]["checkpoint"] = [labels[place] for place in places]
    saved = 0
    fields = [each for field in file["fields"] for each in _of_field(field)]
    for array, dims in (*fields, *_of_frames(file)):
        held = packed[array["block"]]
        if "checkpoint" not in dims or held is None:
            continue
        axis = dims.index("checkpoint")
        packed[array["block"]] = fewer = held.some(axis, places)
        array["shape"] = list(fewer.shape)
        saved += len(held.text) - len(fewer.text)
    said = "of this page's checkpoints every second one is left out, again and again"
    note = f"{said}, until it is no longer too large; all are in the file, and {_REMEDY}"
    if note not in file["notes"]:
        file["notes"] = [*file["notes"], note]
    return saved

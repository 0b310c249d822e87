"""What every variable of every kind of result is: its attributes, from one table.

``variables.csv`` has a row for each quantity. What is made of a quantity (its mean, its interval,
its step from the layer before) says so by the ending of its name, and is described from the row.
"""

from __future__ import annotations

import csv
import importlib.metadata
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

import xarray

import elsewhere
from elsewhere.measures.catalogue import Measure, measures

FIELDS = ("long_name", "units", "range", "direction", "chance", "formula", "source")
"""The attributes of a variable: what it is, in what unit, between which numbers it lies, what
higher or lower values mean, what chance gives, how it is computed, and keys of the literature."""

_ENDINGS: Mapping[str, tuple[str, Mapping[str, str]]] = MappingProxyType(
    {
        "_interval": (", {interval}", {"direction": "narrower: better known"}),
        "_band": (
            ", 95 % band that holds for all layers together",
            {"direction": "narrower: better known"},
        ),
        "_step": (
            ", less that of the layer before on the main branch",
            {"range": "any number", "direction": "above 0: rises at this layer", "chance": "0"},
        ),
        "_difference": (
            ", less that of the first result",
            {"range": "any number", "direction": "above 0: more than the first", "chance": "0"},
        ),
        "_without": (", without each object or category in turn", {}),
        "_away": (", mean over all locations but the one compared with", {}),
        "_displaced": (", against displacement", {}),
        "_in_phase": (", whole numbers of strides away", {}),
        "_out_of_phase": (", no whole number of strides away", {}),
        "_map": (", map over displacements", {}),
        "_null": (", of shuffled rows or pairs", {"chance": "none: it is chance"}),
        "_mean": (", mean over objects", {}),
        "_each": (", each object", {}),
        "_all_pairs": (", between all pairs of locations", {}),
    }
)
_BEGINNINGS = MappingProxyType(
    {
        "untrained_": "network with random weights: ",
        "pixels_": "pixels instead of a layer: ",
        "shuffled_": "control task with shuffled labels: ",
        "trained_": "at the trained locations: ",
        "reference_": "of the reference: ",
    }
)
_FAMILIES = MappingProxyType(
    {
        "accuracy": ("accuracy",),
        "attribution": ("attribution",),
        "attribution sanity": ("attribution sanity",),
        "attribution timeline": ("attribution",),
        "claims": ("claims",),
        "checkpoint measures": ("measure", "accuracy", "track"),
        "comparison": ("claims", "measure", "accuracy", "probe", "attribution", "track"),
        "dissimilarities": ("dissimilarities",),
        "measures": ("measure",),
        "aligned": ("measure",),
        "probe": ("probe",),
        "probe-each": ("probe",),
        "readout": ("readout",),
        "similarity": ("measure",),
        "track": ("measure", "accuracy", "track"),
        "track summary": ("track summary",),
    }
)
"""The parts of the table that each kind of result has."""

_INTERVALS = MappingProxyType(
    {
        "accuracy": "95 % interval over exemplars within classes",
        "probe": "95 % interval over categories",
        "probe-each": "95 % interval over categories",
        "claims": "95 % interval over seeds with Student's t",
        "comparison": "95 % interval; of a difference, paired over what both results share",
    }
)


@cache
def _rows() -> Mapping[tuple[str, str], Mapping[str, str]]:
    text = resources.files(__package__).joinpath("variables.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines(), delimiter="|", quoting=csv.QUOTE_NONE)
    return {(row["kind"], row["name"]): row for row in rows}


def _of_measure(entry: Measure, row: Mapping[str, str]) -> dict[str, str]:
    """Return a row with what the measure's own entry says where it says nothing."""
    own = {
        "range": entry.range,
        "direction": entry.direction,
        "chance": entry.chance,
        "formula": entry.formula,
        "source": ", ".join(entry.sources),
    }
    return {**row, **{key: value for key, value in own.items() if not row.get(key)}}


def _measured(name: str) -> dict[str, str] | None:
    """Return the row of a variable of a measure, built in or a user's."""
    for measure in measures:
        stem = measure.replace("-", "_")
        if row := _rows().get((measure, name)):
            return _of_measure(measures.get(measure), row)
        entry = measures.get(measure)
        row = _rows().get(("metric", f"@{name.removeprefix(stem)}"))
        if row and entry.metric == measure and name.startswith(stem):
            own = {"metric": measure, "formula": entry.formula}
            said = {key: row[key].format_map(own) for key in ("long_name", "formula")}
            return _of_measure(entry, {**row, **said})
        if name in entry.words:
            return _of_measure(entry, {"long_name": entry.words[name]})
    return None


def _row(name: str, kind: str) -> dict[str, str] | None:
    for family in _FAMILIES.get(kind, ("measure", kind)):
        if family == "measure":
            if found := _measured(name):
                return found
        elif row := _rows().get((family, name)):
            return dict(row)
    return None


def _described(name: str, kind: str, interval: str, made_by: Measure | None) -> dict[str, str]:
    if row := _row(name, kind):
        return row
    for ending in (each for each in _ENDINGS if name.endswith(each)):
        said, more = _ENDINGS[ending]
        base = _described(name.removesuffix(ending), kind, interval, made_by)
        if base:
            text = base["long_name"] + said.format(interval=interval)
            return {**base, **more, "long_name": text}
    for beginning, said in _BEGINNINGS.items():
        if name.startswith(beginning):
            base = _described(name.removeprefix(beginning), kind, interval, made_by)
            if base:
                return {**base, "long_name": said + base["long_name"]}
    if made_by is None:
        return {}
    return _of_measure(made_by, {"long_name": name.replace("_", " ")})


def described(
    result: xarray.Dataset, made_by: Mapping[str, Measure] | None = None
) -> xarray.Dataset:
    """Return a result whose variables say in their attributes what they are: see :data:`FIELDS`.

    It also says with which versions it was measured, if it does not yet.

    Parameters
    ----------
    result
        A result of any kind, changed in place; coordinates get ``long_name`` and ``units``.
    made_by
        The measure of a variable, for those of measures that are not built in.
    """
    packages = ("numpy", "scipy", "torch", "xarray")
    versions = {"elsewhere": elsewhere.__version__} | {
        name: found for name in packages if (found := _version(name))
    }
    result.attrs.setdefault("measured_with", versions)
    kind = str(result.attrs.get("kind", ""))
    sampled = "categories" if result.attrs.get("sampled") == "category" else "objects"
    usual = _INTERVALS.get(kind, f"95 % jackknife-t interval over {sampled}")
    for name in map(str, result.data_vars):
        maker = (made_by or {}).get(name)
        interval = usual if maker is None else maker.interval.format(units=sampled)
        row = _described(name, kind, interval, maker)
        _put(result[name], row, FIELDS if row else ())
    for name in map(str, result.coords):
        place = _coordinate(name)
        _put(result[name], {**place, **result[name].attrs}, ("long_name", "units") if place else ())
    return result


@cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _coordinate(name: str) -> Mapping[str, str]:
    for beginning, said in {"": "", "trained_": "trained ", "reference_": "reference's "}.items():
        if name.startswith(beginning):
            row: Mapping[str, Any] | None = _rows().get(
                ("coordinate", name.removeprefix(beginning))
            )
            if row:
                return {**row, "long_name": said + row["long_name"]}
    return {}


def _put(variable: xarray.DataArray, row: Mapping[str, str], fields: tuple[str, ...]) -> None:
    kind = variable.dtype.kind
    usual = {
        "units": "text" if kind in "OUST" else "1",
        "range": "0..1" if kind == "b" else "none",
        "source": "elsewhere",
    }
    for field in fields:
        if field != "units" or field not in variable.attrs:
            variable.attrs[field] = row.get(field) or usual.get(field, "none")

"""Results of one kind, of several networks, conditions or seeds, side by side: :func:`compare`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.analyzer.compared_claims import by_system, compare_claims
from elsewhere.analyzer.paired import Pair, paired_interval, unpaired_notes
from elsewhere.errors import InputError
from elsewhere.forms import (
    beside_main,
    layer_forms,
    layer_labels,
    network_name,
    weights_name,
)
from elsewhere.measures.variables import described
from elsewhere.notes import notes_of
from elsewhere.tokens import TOKEN_PARTS
from elsewhere.types import stem_of

By: TypeAlias = Literal["auto", "name", "depth"]

KINDS = (
    *("similarity", "measures", "accuracy", "probe", "probe-each"),
    *("attribution", "attribution timeline", "track", "claims"),
)
"""The results that can be compared."""

_SHOWN = {
    "canvas": "the canvas, px",
    "object_size": "the object size, px",
    "background": "the background",
    "n_objects": "the number of objects",
    "object_set": "the object set",
}
_ASKED = {
    "metric": "the metric",
    "against": "what locations are compared with",
    "names": "the measures",
    "method": "the method",
    "options": "the options of the method",
    "baseline": "the baseline",
    "margin": "the margin of maps",
    "target": "the target",
    "probe": "the kind of probe",
    "n_classes": "the number of classes",
    "level": "the level of intervals",
}
_PLACES = ("y", "x", "trained_y", "trained_x", "step")
_OVER = ("layer", "exemplars", "where", "checkpoint", "displacement", "metric")
"""Dimensions of numbers that are compared; those of maps and single objects are not."""
_SET = ("strength",)
"""What a number of a result was set to, which is no finding."""
_ENDINGS = ("_interval", "_band", "_step", "_without", "_step_interval", "_step_band")


def compare(
    results: Sequence[xarray.Dataset], names: Sequence[str] | None = None, *, by: By = "auto"
) -> xarray.Dataset:
    """Return the numbers of several results side by side, and how they differ from the first's.

    Parameters
    ----------
    results
        Two or more of one kind, of the same objects, canvas, places and measures; or one of claims
        that holds several systems. Results of several seeds may have other objects of the same set.
    names
        What each is called; by default by network and seed.
    by
        How layers are joined: by ``name``, or by relative ``depth``, from 0 at the first layer that
        was measured to 1 at the last one on the main branch; by name by default where all have the
        same layers.

    Returns
    -------
    xarray.Dataset
        ``kind = comparison``, ``compared`` the kind of the results. Over ``result``, each number V
        of the results that is no map; where it is of layers over ``place``, with the coordinates
        ``layer`` and ``depth`` over (result, place), NaN where a result has fewer layers. Over
        ``other``, the results but the first, ``V_difference`` from the first one: where layers are
        joined by depth it is at the depths of the first one's layers, and the other's are
        interpolated linearly. ``V_interval`` and ``V_difference_interval`` (..., bound) are 95 %.
        Differences are paired over what both share: objects or categories (jackknife-t), the
        classes of probes, exemplars within classes (of accuracies), seeds (of claims); NaN where
        nothing is shared or kept, as ``notes`` say. Of claims over ``claim``, with ``verdict``
        (result, claim).

    Raises
    ------
    InputError
        Fewer than two; another kind, stimuli, canvas, places or measures; names that do not fit.
    """
    results = list(results)
    _check_kinds(results)
    kind = str(results[0].attrs["kind"])
    if kind == "claims":
        results, names = by_system(results, names)
    if len(results) < 2:
        raise InputError("a comparison is of two results or more; got 1")
    called = _called(results, names)
    if kind == "claims":
        return compare_claims(results, called, _notes(results, called))
    notes = _check_same(results, called)
    pairs = [Pair.of(results[0], each, called[0], name) for each, name in _others(results, called)]
    keys = _numbers(results, called)
    joined = (
        _Layers.of(results, by) if any("layer" in results[0][key].dims for key in keys) else None
    )
    variables: dict[str, Any] = {}
    for key in keys:
        variables |= _of_variable(key, results, pairs, joined)
    found = xarray.Dataset(variables, coords=_coordinates(results, called, joined))
    digests = {result.attrs.get("object_digest", "") for result in results}
    found.attrs = {
        "kind": "comparison",
        "compared": kind,
        **({"object_digest": digests.pop()} if len(digests) == 1 and all(digests) else {}),
        "joined_by": "nothing" if joined is None else joined.by,
        **{k: v for k, v in results[0].attrs.items() if k in (*_SHOWN, *_ASKED)},
        "stem": stem_of(results[0].attrs) if kind == "similarity" else "",
        "level": 0.95,
        "notes": [
            *notes,
            *_same_numbers(results, called),
            *([] if joined is None else joined.notes(called)),
            *_token_notes(results, called),
            *dict.fromkeys(note for pair in pairs for note in pair.notes),
            *unpaired_notes(pairs),
            *_notes(results, called),
        ],
    }
    return described(found)


def _others(
    results: Sequence[xarray.Dataset], called: Sequence[str]
) -> list[tuple[xarray.Dataset, str]]:
    return list(zip(results[1:], called[1:], strict=True))


def _notes(results: Sequence[xarray.Dataset], called: Sequence[str]) -> list[str]:
    """Return the doubts of the results: those of all once, others with the name of their result."""
    each = [notes_of(result) for result in results]
    shared = [note for note in each[0] if all(note in notes for notes in each)]
    return shared + [
        f"{name}: {note}"
        for name, notes in zip(called, each, strict=True)
        for note in notes
        if note not in shared
    ]


def _same_numbers(results: Sequence[xarray.Dataset], called: Sequence[str]) -> list[str]:
    """Return which results are the first one again: one file given twice, or two runs of one."""
    return [
        f"{name} holds the same numbers as {called[0]}: all differences between them are 0"
        for each, name in _others(results, called)
        if each.equals(results[0])
    ]


def _token_notes(results: Sequence[xarray.Dataset], called: Sequence[str]) -> list[str]:
    """Return which tokens were taken of layers that give tokens, where that differs."""
    taken = [
        "/".join(sorted({form.split()[0] for form in layer_forms(each)} & {*TOKEN_PARTS})) or "all"
        for each in results
        if "layer" in each.coords
    ]
    if len({*taken}) < 2:
        return []
    said = (f"{part} in {name}" for part, name in zip(taken, called, strict=True))
    return [f"of layers that give tokens other ones were taken: {', '.join(said)}"]


# --- what may be compared


def _check_kinds(results: Sequence[xarray.Dataset]) -> None:
    if not results:
        raise InputError("a comparison is of two results or more; got none")
    kinds = [str(result.attrs.get("kind", "unknown")) for result in results]
    if odd := [kind for kind in kinds if kind != kinds[0]]:
        raise InputError(
            f"results of two kinds cannot be compared, {kinds[0]} and {odd[0]}; give results of one"
        )
    if kinds[0] not in KINDS:
        raise InputError(
            f"results of the kind {kinds[0]!r} cannot be compared; expected {', '.join(KINDS)}"
        )


def _check_same(results: Sequence[xarray.Dataset], called: Sequence[str]) -> list[str]:
    """Refuse results of other stimuli or measures; return what is doubtful about the objects."""
    first = results[0]
    for each, name in _others(results, called):
        for facts in (_SHOWN, _ASKED):
            for key, said in facts.items():
                one, other = (result.attrs.get(key) for result in (first, each))
                if _plain(one) != _plain(other):
                    raise InputError(
                        f"{said} differs: {one} in {called[0]}, {other} in {name}; measure both "
                        "alike"
                    )
        for key in _PLACES:
            one, other = (
                result[key].values.tolist() if key in result.variables else None
                for result in (first, each)
            )
            if one != other and not (key.startswith("trained") and _seeds_differ(first, each)):
                raise InputError(
                    f"the {'steps' if key == 'step' else f'locations ({key})'} of {called[0]} and "
                    f"{name} differ; measure both at the same ones"
                )
    if all(_digest(each) == _digest(first) for each in results):
        return []
    digests: dict[Any, set[str]] = {}
    for each in results:
        digests.setdefault(each.attrs.get("seed"), set()).add(_digest(each))
    if any(len(found) > 1 for found in digests.values()):
        other = next(
            name for each, name in _others(results, called) if _digest(each) != _digest(first)
        )
        raise InputError(
            f"{called[0]} and {other} were measured with other objects; measure both with the same"
        )
    return ["seeds drew different objects: differences between seeds have no interval (nan)"]


def _digest(result: xarray.Dataset) -> str:
    return str(result.attrs.get("object_digest", result.attrs.get("identity", "")))


def _seeds_differ(one: xarray.Dataset, other: xarray.Dataset) -> bool:
    return bool(one.attrs.get("seed") != other.attrs.get("seed"))


def _plain(value: Any) -> Any:
    return np.asarray(value).tolist() if isinstance(value, np.ndarray | list | tuple) else value


def _called(results: Sequence[xarray.Dataset], names: Sequence[str] | None) -> list[str]:
    """Return what results are called: as told, or by what tells them apart."""
    if names is None:
        names = [_name(result) for result in results]
        if len({*names}) < len(names):
            names = [f"{name} #{number}" for number, name in enumerate(names, start=1)]
    if len(names) != len(results):
        raise InputError(f"there are {len(names)} names for {len(results)} results; name each")
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise InputError(f"two results are called {twice[0]!r}; give each a name of its own")
    return list(names)


def _name(result: xarray.Dataset) -> str:
    weights = weights_name(result.attrs)
    parts = [network_name(result.attrs) or "network", str(result.attrs.get("run", ""))]
    if weights and weights != "none":
        parts.append(weights)
    if "seed" in result.attrs:
        parts.append(f"seed {result.attrs['seed']}")
    return ", ".join(filter(None, parts))


def _numbers(results: Sequence[xarray.Dataset], called: Sequence[str]) -> list[str]:
    """Return the names of the numbers that all results have; refuse where there are others."""
    each = [
        {
            str(key): values.dims
            for key, values in result.data_vars.items()
            if {*values.dims} <= {*_OVER}
            and values.dtype.kind == "f"
            and not str(key).endswith(_ENDINGS)
            and key not in _SET
        }
        for result in results
    ]
    for numbers, name in zip(each[1:], called[1:], strict=True):
        if odd := sorted({*each[0]} ^ {*numbers}):
            lacks = name if odd[0] in each[0] else called[0]
            raise InputError(
                f"the measures differ: {lacks} lacks {odd[0]}"
                + (f" and {len(odd) - 1} more" if len(odd) > 1 else "")
                + "; measure both alike"
            )
    if not each[0]:
        raise InputError(f"{called[0]} holds no number that can be compared, only maps")
    return list(each[0])


# --- layers


@dataclass(frozen=True)
class _Layers:
    """How the layers of several results are joined.

    `depths` are (place,) of each result. By name, differences are of the layers called `shared`; by
    depth they are at the depths of the first result.
    """

    by: Literal["name", "depth"]
    names: tuple[list[str], ...]
    depths: tuple[NDArray[np.float64], ...]
    main: tuple[NDArray[np.int64], ...]  # places on the main branch, of each result
    shared: list[str]

    @classmethod
    def of(cls, results: Sequence[xarray.Dataset], by: By) -> _Layers:
        if by not in ("auto", "name", "depth"):
            raise InputError(f"layers are joined by auto, name or depth; got {by!r}")
        names = tuple(layer_labels(result) for result in results)
        shared = [name for name in names[0] if all(name in other for other in names)]
        if by == "auto":
            by = "name" if all(other == names[0] for other in names) else "depth"
        if by == "name" and not shared:
            raise InputError(
                f"no layer has the same name in all results ({names[0][0]}, {names[1][0]}, ...); "
                "join them by depth"
            )
        main, depths = [], []
        for result, layers in zip(results, names, strict=True):
            beside = beside_main(result)
            places = np.array([n for n in range(len(layers)) if n not in beside], np.int64)
            main.append(places)
            depths.append(
                np.interp(np.arange(len(layers)), places, np.linspace(0, 1, len(places)))
                if len(places) > 1
                else np.ones(len(layers))
            )
        return cls(by, names, tuple(depths), tuple(main), shared)

    @property
    def most(self) -> int:
        """The layers of the result that has most."""
        return max(map(len, self.names))

    def padded(self, values: NDArray[Any], number: int, axis: int) -> NDArray[Any]:
        """Return values of a result's layers, with NaN for those that it lacks."""
        missing = self.most - len(self.names[number])
        widths = [(0, missing if place == axis else 0) for place in range(values.ndim)]
        return np.pad(values, widths, constant_values=np.nan)

    def at_joined(self, values: NDArray[np.float64], number: int, axis: int) -> NDArray[np.float64]:
        """Return values of a result's layers where differences are taken."""
        if self.by == "name":
            return values.take([self.names[number].index(name) for name in self.shared], axis)
        if number == 0:
            return values
        places, depths = self.main[number], self.depths[number]
        wanted = np.interp(self.depths[0], depths[places], np.arange(len(places)))
        low = np.floor(wanted).astype(np.int64)
        high = np.minimum(low + 1, len(places) - 1)
        share = (wanted - low).reshape(-1, *[1] * (values.ndim - 1 - axis))
        before, behind = (values.take(places[which], axis) for which in (low, high))
        # a layer without a value must not spoil those that stand exactly on another
        return np.where(share == 0, before, (1 - share) * before + share * behind)

    def notes(self, called: Sequence[str]) -> list[str]:
        if self.by == "depth":
            return [
                f"layers differ: differences are at the depths of {called[0]}, and the other's "
                "values are interpolated between its layers on the main branch"
            ]
        left = [
            f"{name}: {', '.join(sorted({*layers} - {*self.shared}))}"
            for name, layers in zip(called, self.names, strict=True)
            if {*layers} - {*self.shared}
        ]
        return [f"layers without a partner have no difference: {'; '.join(left)}"] if left else []


def _coordinates(
    results: Sequence[xarray.Dataset], called: Sequence[str], joined: _Layers | None
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "result": list(called),
        "other": list(called[1:]),
        "bound": ["low", "high"],
    }
    for name in ("exemplars", "where", "displacement", "metric"):
        if name in results[0].coords:
            found[name] = results[0][name].values
    for name in ("phase", "step"):
        if name in results[0].coords:
            found[name] = ("checkpoint", results[0][name].values)
    if joined is not None:
        rows = [names + [""] * (joined.most - len(names)) for names in joined.names]
        depths = [joined.padded(each, number, 0) for number, each in enumerate(joined.depths)]
        at = joined.shared if joined.by == "name" else joined.names[0]
        places = [joined.names[0].index(name) for name in at]
        found |= {
            "layer": (("result", "place"), np.array(rows, dtype=str)),
            "depth": (("result", "place"), np.stack(depths)),
            "joined_layer": ("joined", list(at)),
            "joined_depth": ("joined", joined.depths[0][places]),
        }
    return found


def _of_variable(
    key: str,
    results: Sequence[xarray.Dataset],
    pairs: Sequence[Pair],
    joined: _Layers | None,
) -> dict[str, Any]:
    """Return a number of all results, its differences from the first one's, and intervals."""
    dims = [str(dim) for dim in results[0][key].dims]
    layered = "layer" in dims
    axis = dims.index("layer") if layered else 0
    values = [result[key].transpose(*dims).values.astype(np.float64) for result in results]

    def whole(each: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        if joined is None or not layered:
            return np.stack(each)
        return np.stack([joined.padded(one, number, axis) for number, one in enumerate(each)])

    def at(one: NDArray[np.float64], number: int) -> NDArray[np.float64]:
        if joined is None or not layered:
            return one
        return joined.at_joined(one, number, axis)

    out = ["place" if dim == "layer" else dim for dim in dims]
    apart = ["joined" if dim == "layer" else dim for dim in dims]
    attributes = {name: text for name, text in results[0][key].attrs.items() if name != "reason"}
    found: dict[str, Any] = {key: (("result", *out), whole(values), attributes)}
    bounds = f"{key}_interval"
    if all(bounds in result for result in results):
        intervals = [result[bounds].transpose(*dims, "bound").values for result in results]
        found[bounds] = (("result", *out, "bound"), whole(intervals))
    differences, ends = [], []
    for number, (one, pair) in enumerate(zip(values[1:], pairs, strict=True), start=1):
        differences.append(at(one, number) - at(values[0], 0))
        which = (0, number)
        ends.append(paired_interval(key, dims, pair, partial(_placed, at, which)))
    found[f"{key}_difference"] = (("other", *apart), np.stack(differences), attributes)
    found[f"{key}_difference_interval"] = (("other", *apart, "bound"), np.stack(ends))
    return found


def _placed(
    at: Callable[[NDArray[np.float64], int], NDArray[np.float64]],
    which: Sequence[int],
    values: NDArray[np.float64],
    number: int,
) -> NDArray[np.float64]:
    """Return values of the first or second result of a pair where differences are taken."""
    return at(values, which[number])

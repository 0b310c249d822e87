"""The methods section of a paper, from what a recording or a result says of itself."""

from __future__ import annotations

import importlib.metadata
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import xarray

from elsewhere.analyzer.bibliography import to_bibtex
from elsewhere.errors import InputError
from elsewhere.measures.catalogue import measures
from elsewhere.storage import Recording

INTERVALS = (
    "Intervals are 95 % delete-one jackknife intervals over objects with Student's t [efron1993]; "
    "locations were not resampled."
)


def describe_methods(source: Recording | xarray.Dataset) -> str:
    """Return a methods section as Markdown: what was done, versions, digests, formulas, BibTeX.

    Parameters
    ----------
    source
        A recording, or a result (whatever its kind): only what it says of itself is used.

    Returns
    -------
    str
        Paragraphs, then the references in a fenced block of BibTeX.

    Raises
    ------
    InputError
        A dataset that does not say what it is.

    Examples
    --------
    >>> result = xarray.Dataset(attrs={"kind": "measures", "names": ["cka"], "model": "vgg16"})
    >>> print(describe_methods(result).splitlines()[0])
    # Methods
    >>> "kornblith2019" in describe_methods(result)
    True
    """
    if isinstance(source, Recording):
        facts: Mapping[str, Any] = {**source.attributes, **_design_facts(source)}
        layers = [f"{layer.name} ({layer.keep})" for layer in source.layers]
        names: list[str] = []
    else:
        facts = {str(key): value for key, value in source.attrs.items()}
        if "kind" not in facts:
            raise InputError(
                "the dataset has no attribute 'kind', so it is no result of elsewhere; give a "
                "recording or a result"
            )
        facts = {**facts, **_axis_facts(source)}
        layers = [str(name) for name in source["layer"].values] if "layer" in source.coords else []
        names = _measured(facts)
    paragraphs = [
        _what_was_shown(facts),
        _what_was_recorded(facts, layers),
        _what_was_measured(facts, names),
        _numerics(facts),
        _digests(facts),
    ]
    keys: set[str] = {"biscione2021"}
    for name in names:
        keys |= set(measures.get(name).sources)
    if names:
        keys.add("efron1993")
    if any("sketch" in layer for layer in layers):
        keys.add("charikar2002")
    version = _version(facts)
    body = "\n\n".join(paragraph for paragraph in paragraphs if paragraph)
    return f"# Methods\n\n{body}\n\n```bibtex\n{to_bibtex(keys, version=version)}\n```\n"


def _design_facts(recording: Recording) -> dict[str, Any]:
    design = recording.design
    return {
        "n_objects": len(design.objects),
        "n_categories": len(set(design.categories)),
        "axes_px": {name: list(values) for name, values in design.axes},
    }


def _axis_facts(result: xarray.Dataset) -> dict[str, Any]:
    axes = {
        name: [int(value) for value in result[name].values]
        for name in ("y", "x")
        if name in result.coords
    }
    return {"axes_px": axes} if axes else {}


def _measured(facts: Mapping[str, Any]) -> list[str]:
    """Return the registered measures of a result."""
    kind = facts["kind"]
    if kind == "measures":
        return [name for name in facts.get("names", []) if name in measures]
    if kind == "similarity":
        metric = str(facts.get("metric", "cosine")).partition("(")[0]
        return [metric if metric in measures else "cosine", "G"]
    if kind == "aligned":
        return ["aligned"]
    if kind == "accuracy":
        return ["accuracy-map", "invariance-index"]
    return []


def _version(facts: Mapping[str, Any]) -> str:
    for key in ("versions", "measured_with"):
        found = facts.get(key)
        if isinstance(found, Mapping) and "elsewhere" in found:
            return str(found["elsewhere"])
    return importlib.metadata.version("elsewhere")


def _joined(values: Iterable[Any]) -> str:
    words = [str(value) for value in values]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _spread(values: Sequence[int]) -> str:
    if len(values) == 1:
        return f"{values[0]} px"
    steps = sorted({b - a for a, b in itertools.pairwise(values)})
    every = f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
    return f"{len(values)} from {values[0]} to {values[-1]} px, {every} px apart"


def _what_was_shown(facts: Mapping[str, Any]) -> str:
    parts = []
    model = facts.get("model", "")
    if model == "arrays":
        parts.append("Activations were recorded by other software and given as arrays.")
    elif model:
        arguments = facts.get("model_arguments") or {}
        given = ", ".join(f"{key}={value}" for key, value in arguments.items())
        parts.append(
            f"The network was {model}{f' ({given})' if given else ''} with weights "
            f"'{facts.get('weights', 'unknown')}', in evaluation mode."
        )
    n, n_categories = facts.get("n_objects"), facts.get("n_categories")
    if n is not None:
        known = f" of the set '{facts['object_set']}'" if "object_set" in facts else ""
        several = f" of {n_categories} categories" if n_categories is not None else ""
        size = f", {facts['object_size']} px large" if "object_size" in facts else ""
        parts.append(f"There were {n} objects{several}{known}{size}.")
    axes = facts.get("axes_px")
    if axes:
        places = "; ".join(f"{name}: {_spread(values)}" for name, values in axes.items())
        canvas = (
            f" on a canvas of {facts['canvas']} x {facts['canvas']} px" if "canvas" in facts else ""
        )
        ground = facts.get("background")
        colour = f" of constant background (R, G, B) = {tuple(ground)}" if ground else ""
        parts.append(f"Each stood at every location of a grid{canvas}{colour} ({places}).")
    if "reference_y" in facts and "reference_x" in facts:
        parts.append(
            f"The reference location was (y, x) = ({facts['reference_y']}, "
            f"{facts['reference_x']}), as in [biscione2021] the leftmost of the middle row unless "
            "chosen otherwise."
        )
    if "mean" in facts and "std" in facts:
        parts.append(
            f"The input was (pixel / 255 - {facts['mean']}) / {facts['std']} * "
            f"{facts.get('gain', 1)}, by channel."
        )
    return " ".join(parts)


def _what_was_recorded(facts: Mapping[str, Any], layers: Sequence[str]) -> str:
    if not layers:
        return ""
    dtype = f" as {facts['dtype']}" if "dtype" in facts else ""
    return f"The layers were {_joined(layers)}{dtype}."


def _what_was_measured(facts: Mapping[str, Any], names: Sequence[str]) -> str:
    if not names:
        return ""
    lines = ["Write a(o, p) for a layer's activation on object o at location p.", ""]
    for name in names:
        found = measures.get(name)
        cited = f" [{', '.join(found.sources)}]" if found.sources else ""
        lines.append(f"- {name}: {measures.summary(name)}; {found.formula}{cited}.")
    lines += ["", INTERVALS]
    if notes := facts.get("notes"):
        lines += ["", "To be read with: " + "; ".join(str(note) for note in notes) + "."]
    return "\n".join(lines)


def _numerics(facts: Mapping[str, Any]) -> str:
    parts = []
    numerics = facts.get("numerics")
    if isinstance(numerics, Mapping):
        said = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in numerics.items())
        parts.append(f"Numerics: {said}.")
    for key in ("versions", "measured_with"):
        found = facts.get(key)
        if isinstance(found, Mapping):
            said = ", ".join(f"{package} {number}" for package, number in found.items())
            parts.append(f"{'Recorded' if key == 'versions' else 'Measured'} with {said}.")
    if facts.get("command"):
        parts.append(f"Command: `{facts['command']}`.")
    if facts.get("created"):
        parts.append(f"Created {facts['created']}.")
    if "seed" in facts:
        parts.append(f"Seed {facts['seed']}.")
    return " ".join(parts)


def _digests(facts: Mapping[str, Any]) -> str:
    known = {
        "weights_sha256": "weights (SHA-256)",
        "object_digest": "objects",
        "identity": "recording",
    }
    said = [f"{words} {facts[key]}" for key, words in known.items() if facts.get(key)]
    return f"Digests: {'; '.join(said)}." if said else ""

"""The methods section of a paper, from what a recording or a result says of itself."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray

import elsewhere
from elsewhere.analyzer.bibliography import to_bibtex
from elsewhere.analyzer.procedures import intervals, joined, said_of
from elsewhere.analyzer.training_facts import of_run
from elsewhere.errors import InputError
from elsewhere.forms import label, layer_labels, weights_name
from elsewhere.measures.catalogue import measures
from elsewhere.storage import Recording

_STATISTICS = {
    "frozen": "In training, the running statistics of normalisations were kept as they were.",
    "batch": "Running statistics of normalisations are exponential means gathered in training.",
    "recalibrated": "Running statistics of normalisations were measured anew for these weights, as "
    "means over batches of training presentations.",
}
"""What the batch_norm of a checkpoint means."""


def describe_methods(source: Recording | xarray.Dataset | Path) -> str:
    """Return a methods section as Markdown: what was done, versions, digests, formulas, BibTeX.

    Parameters
    ----------
    source
        A recording, or a result (whatever its kind): only what it says of itself is used. Or the
        directory of a run of training.

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
    if isinstance(source, Path):
        source = of_run(source)
    if not isinstance(source, xarray.Dataset):
        facts: Mapping[str, Any] = {**source.attributes, **_design_facts(source)}
        layers = [label(layer.name, layer.form) for layer in source.layers]
        names: list[str] = []
    else:
        facts = {str(key): value for key, value in source.attrs.items()}
        if "kind" not in facts:
            raise InputError(
                "the dataset has no attribute 'kind', so it is no result of elsewhere; give a "
                "recording or a result"
            )
        facts = {**facts, **_axis_facts(source)}
        layers = layer_labels(source) if "layer" in source.coords else []
        names = _measured(facts)
    procedure, cited = "", set[str]()
    if isinstance(source, xarray.Dataset):
        procedure, cited = said_of(facts, source)
    paragraphs = [
        _what_was_shown(facts),
        _what_was_recorded(facts, layers),
        procedure,
        _what_was_measured(facts, names),
        _numerics(facts),
        _digests(facts),
        _notes(facts),
    ]
    keys: set[str] = {"biscione2021", *cited}
    for name in names:
        keys |= set(measures.get(name).sources if name in measures else ())
    if names and facts["kind"] != "accuracy":
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
        "axes_px": {axis.name: axis.values for axis in design.axes.moving},
        "changed": {axis.name: (axis.values, axis.unit) for axis in design.axes.changing},
        **{f"reference_{n}": v for n, v in zip(design.names, design.reference, strict=True)},
    }


def _axis_facts(result: xarray.Dataset) -> dict[str, Any]:
    axes = {
        name: [int(value) for value in result[name].values]
        for name in ("y", "x")
        if name in result.coords
    }
    found: dict[str, Any] = {"axes_px": axes} if axes else {}
    if "trained_y" in result.coords and "trained_x" in result.coords:
        pairs = zip(result["trained_y"].values, result["trained_x"].values, strict=True)
        found["trained"] = [[int(y), int(x)] for y, x in pairs]
    found["changed"] = {
        name: (result[name].values.tolist(), str(result[name].attrs.get("units", "1")))
        for name in map(str, result.dims)
        if f"reference_{name}" in result.attrs and name not in ("y", "x")
    }
    if "object" in result.sizes and "n_objects" not in result.attrs:
        found["n_objects"] = result.sizes["object"]
    if "category" in result.coords and "n_categories" not in result.attrs:
        found["n_categories"] = len(np.unique(result["category"].values))
    return found


def _measured(facts: Mapping[str, Any]) -> list[str]:
    """Return the registered measures of a result."""
    kind = facts["kind"]
    if kind == "measures":
        return [str(name) for name in facts.get("names", [])]
    metric = str(facts.get("metric", "cosine")).partition("(")[0]
    compared = [metric if metric in measures else "cosine", "G"]
    if kind == "similarity":
        return compared
    if kind == "aligned":
        return ["aligned"]
    if kind == "accuracy":
        return ["accuracy-map", "invariance-index"]
    if kind == "track":
        return ["accuracy-map", "invariance-index", *compared, *facts.get("names", ())]
    return []


def _version(facts: Mapping[str, Any]) -> str:
    for key in ("versions", "measured_with"):
        found = facts.get(key)
        if isinstance(found, Mapping) and "elsewhere" in found:
            return str(found["elsewhere"])
    return elsewhere.__version__


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
        weights = "" if facts.get("kind") == "track" else weights_name(facts)
        of = "the checkpoint " if "training" in facts else ""
        how = {"none": "weights drawn at random", "": "the weights of each checkpoint"}.get(
            weights, f"the weights of {of}'{weights}'" if of else f"the weights '{weights}'"
        )
        parts.append(
            f"The network was {model}{f' ({given})' if given else ''} with {how}, in evaluation "
            "mode."
        )
        parts.append(_STATISTICS.get(str(facts.get("batch_norm")), ""))
        parts.append(_noise(facts.get("noise") or ()))
    n, n_categories = facts.get("n_objects"), facts.get("n_categories")
    if n is not None:
        known = _set_of(facts)
        several = f" of {n_categories} categories" if n_categories is not None else ""
        size = f", {facts['object_size']} px large" if "object_size" in facts else ""
        parts.append(f"There were {n} objects{several}{known}{size}.")
        parts.append(_told_from_ground(facts))
    axes = facts.get("axes_px")
    if axes:
        places = "; ".join(f"{name}: {_spread(values)}" for name, values in axes.items())
        canvas = (
            f" on a canvas of {facts['canvas']} x {facts['canvas']} px" if "canvas" in facts else ""
        )
        ground = facts.get("background")
        colour = f" of constant background (R, G, B) = {tuple(ground)}" if ground else ""
        parts.append(f"Each stood at every location of a grid{canvas}{colour} ({places}).")
    elif "canvas" in facts:
        size = f", objects were {facts['object_size']} px large" if "object_size" in facts else ""
        parts.append(f"The canvas was {facts['canvas']} x {facts['canvas']} px{size}.")
    for name, (values, unit) in facts.get("changed", {}).items():
        of = "" if unit in ("", "1") else f" {unit}"
        neutral = f" (of the reference: {facts[f'reference_{name}']:g}{of})"
        listed = joined(f"{value:g}" for value in values)
        parts.append(f"At each location it was shown at {name} {listed}{of}{neutral}.")
    if "reference_y" in facts and "reference_x" in facts:
        parts.append(_reference(facts))
    if "mean" in facts and "std" in facts:
        gain = float(facts.get("gain", 1))
        parts.append(
            f"The input was (pixel / 255 - {_by_channel(facts['mean'])}) / "
            f"{_by_channel(facts['std'])}{f' * {gain:g}' if gain != 1 else ''}"
            + (", in the order blue, green, red." if facts.get("channels") == "bgr" else ".")
        )
    return " ".join(filter(None, parts))


def _noise(noise: Sequence[str]) -> str:
    """Return what acted in training only: kinds, and how many layers of each."""
    counts = Counter(each.partition(" (")[0] for each in noise)
    if not counts:
        return ""
    listed = joined(f"{what}{f' ({n} times)' if n > 1 else ''}" for what, n in counts.items())
    return f"What acted in training only was at rest: {listed}."


def _set_of(facts: Mapping[str, Any]) -> str:
    """Return of which set objects are; of a folder its name, not its path."""
    if "object_set" not in facts:
        return ""
    folder = (facts.get("object_source") or {}).get("folder")
    if folder:
        return f" of the folder '{Path(str(folder)).name or 'of images'}'"
    return f" of the set '{facts['object_set']}'"


def _told_from_ground(facts: Mapping[str, Any]) -> str:
    """Return how the objects of a folder were told from what surrounds them in the images."""
    ground = (facts.get("object_source") or {}).get("ground")
    return f"Objects were told from the ground of their images by {ground}." if ground else ""


def _reference(facts: Mapping[str, Any]) -> str:
    """Return which location others are compared with, and why that one."""
    place = (int(facts["reference_y"]), int(facts["reference_x"]))
    said = f"The reference location was (y, x) = {place}"
    axes = facts.get("axes_px") or {}
    rows, columns = list(axes.get("y", ())), list(axes.get("x", ()))
    if place in [tuple(each) for each in facts.get("trained") or ()]:
        return f"{said}, a trained location."
    if len(rows) > 1 and place == (rows[len(rows) // 2], columns[0]):
        middle = "the middle row" if len(rows) % 2 else f"row {len(rows) // 2 + 1} of {len(rows)}"
        return f"{said}, the leftmost of {middle}, as in [biscione2021]."
    return f"{said}."


def _by_channel(values: Sequence[float]) -> str:
    """Return the numbers of the channels, or the one that they share."""
    return f"{values[0]:g}" if len(set(values)) == 1 else f"({', '.join(f'{v:g}' for v in values)})"


def _what_was_recorded(facts: Mapping[str, Any], layers: Sequence[str]) -> str:
    if not layers:
        return ""
    dtype = f" as {facts['dtype']}" if "dtype" in facts else ""
    return f"The layers were {joined(layers)}{dtype}."


def _what_was_measured(facts: Mapping[str, Any], names: Sequence[str]) -> str:
    if not names:
        return ""
    lines = ["Write a(o, p) for a layer's activation on object o at location p.", ""]
    for name in names:
        sources = measures.get(name).sources if name in measures else ()
        cited = f" [{', '.join(sources)}]" if sources else ""
        lines.append(f"- {name}: {_formula(name, facts)}{cited}.")
    lines += ["", intervals(facts)]
    return "\n".join(lines)


def _formula(name: str, facts: Mapping[str, Any]) -> str:
    """Return what a measure is: as registered, else as the result says."""
    if name in measures:
        return f"{measures.summary(name)}; {measures.get(name).formula}"
    said = (facts.get("formulas") or {}).get(name)
    return str(said or "a measure that is not registered here")


_UNDEFINED = re.compile(r"(\S+) is undefined \(nan\): (same|held-out): (.+)", re.DOTALL)


def _notes(facts: Mapping[str, Any]) -> str:
    """Return the doubts, apart from what is for a paper; of numbers undefined for one reason once.

    Examples
    --------
    >>> notes = [f"{name} is undefined (nan): same: few" for name in ("II", "II_far")]
    >>> _notes({"notes": notes}).splitlines()[-1]
    '- II (same) and II_far (same) are undefined (nan): few.'
    """
    found: dict[str, list[str]] = {}
    for note in (str(each).rstrip(".") for each in facts.get("notes") or ()):
        match = _UNDEFINED.fullmatch(note)
        named = found.setdefault(match[3] if match else note, [])
        named += [f"{match[1]} ({match[2]})"] if match else []
    lines = [
        f"- {joined(named)} {'are' if len(named) > 1 else 'is'} undefined (nan): {text}."
        if named
        else f"- {text}."
        for text, named in found.items()
    ]
    heading = "## Notes on the numbers\n\nThese are for the authors, not a part of the methods:\n\n"
    return heading + "\n".join(lines) if lines else ""


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

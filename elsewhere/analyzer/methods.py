"""The methods section of a paper, from what a recording or a result says of itself."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray

import elsewhere
from elsewhere.analyzer.bibliography import SOFTWARE, cited_in, to_bibtex
from elsewhere.analyzer.procedures import intervals, joined, said_of
from elsewhere.analyzer.stimulus_facts import said_of_stimuli
from elsewhere.analyzer.training_facts import of_run
from elsewhere.errors import InputError
from elsewhere.forms import label, layer_labels, near, weights_name
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
        layers = [*filter(None, dict.fromkeys(layers))]  # a comparison has them of each result
        names = _measured(facts)
    paragraphs = [
        _network(facts),
        said_of_stimuli(facts),
        _what_was_recorded(layers),
        said_of(facts, source) if isinstance(source, xarray.Dataset) else "",
        _what_was_measured(facts, names),
        _numerics(facts),
        _digests(facts),
        _notes(facts),
    ]
    body = _without_ways("\n\n".join(paragraph for paragraph in paragraphs if paragraph))
    bibliography = to_bibtex(cited_in(body), version=_version(facts))
    return f"# Methods\n\n{body}\n\n```bibtex\n{bibliography}\n```\n"


_WAY = re.compile(
    r"(?<![\w/:.)\]}|~-])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\'\"`|()]+[/\\])+[^\s'\"`|()]*"
)
"""The way to a file from the root, or from somebody's home."""


def _without_ways(text: str) -> str:
    """Return a text in which files are named, but not the ways to them.

    Examples
    --------
    >>> _without_ways("of /home/anna/own.py:Net, and `--out=/tmp/a/b.nc`; 1/2 and a(o,p)/(b/c)")
    'of own.py:Net, and `--out=b.nc`; 1/2 and a(o,p)/(b/c)'
    """
    return _WAY.sub(lambda found: near(found[0]), text)


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
    kind = facts["kind"] if facts["kind"] != "comparison" else facts["compared"]
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


def _network(facts: Mapping[str, Any]) -> str:
    """Return which network it was, with which weights."""
    model = str(facts.get("model", ""))
    if model == "arrays":
        return "Activations were recorded by other software and given as arrays."
    if not model:
        return ""
    arguments = facts.get("model_arguments") or {}
    given = ", ".join(f"{key}={value}" for key, value in arguments.items())
    return " ".join(
        filter(
            None,
            (
                f"The network was {near(model)}{f' ({given})' if given else ''} with "
                f"{_weights(facts)}, in evaluation mode.",
                _STATISTICS.get(str(facts.get("batch_norm"))),
                _noise(facts.get("noise") or ()),
                _origin(facts),
                _input(facts),
            ),
        )
    )


def _origin(facts: Mapping[str, Any]) -> str:
    """Return where published weights come from: the network's own, or what training began with."""
    origin = str(facts.get("origin") or "")
    if not origin:
        return ""
    began = "training" in facts or str(facts.get("weights")).endswith(".safetensors")
    return f"The weights{' that training began with' if began else ''} are {origin}."


def _noise(noise: Sequence[str]) -> str:
    """Return what acted in training only: kinds, the span of their rates, and how many layers."""
    rates: dict[str, list[float]] = {}
    for each in noise:
        found = re.fullmatch(r"(.*?)(?: ([\d.e-]+))? \(.*\)", each)
        kind, rate = found.groups() if found else (each, None)
        rates.setdefault(str(kind), []).append(float("nan") if rate is None else float(rate))
    listed = []
    for kind, known in rates.items():
        low, high = f"{min(known):g}", f"{max(known):g}"
        span = "" if low == "nan" else f" {low}" if low == high else f" {low} to {high}"
        listed.append(f"{kind}{span} (in {len(known)} layers)" if len(known) > 1 else kind + span)
    return f"What acted in training only was at rest: {joined(listed)}." if listed else ""


def _weights(facts: Mapping[str, Any]) -> str:
    """Return which weights a network had, and with which seed those that are random were drawn."""
    if facts.get("kind") in ("track", "attribution timeline"):
        return "the weights of each checkpoint"
    seed = f" (seed {facts['weights_seed']})" if "weights_seed" in facts else ""
    asked, said = str(facts.get("weights") or ""), weights_name(facts)
    if asked == "none" and ":" in str(facts.get("model")):
        how = "makes them" if said.startswith("as its factory") else f"loads them with {said}"
        return f"weights as its factory {how}{seed}"
    if asked in ("", "none"):
        return f"weights drawn at random{seed}" if asked else "weights that are not named"
    if asked == "imagenet":
        of = "published ImageNet weights"
    elif asked == "in memory":
        of = "the weights that it had in memory"
    else:
        of = f"the weights {'of the checkpoint ' if 'training' in facts else ''}'{near(asked)}'"
    keys = facts.get("random_keys")
    return f"{of}; {', '.join(keys)} drawn at random{seed}" if keys else of


def _input(facts: Mapping[str, Any]) -> str:
    """Return what the network got of a pixel; what changes nothing is left out."""
    if "mean" not in facts or "std" not in facts:
        return ""
    mean, std, gain = list(facts["mean"]), list(facts["std"]), float(facts.get("gain", 1))
    scale = f" / {_by_channel(std)}" if set(std) != {1} else ""
    scale += f" * {gain:g}" if gain != 1 else ""
    formula = f"pixel / 255 - {_by_channel(mean)}" if any(mean) else "pixel / 255"
    formula = f"({formula}){scale}" if scale and any(mean) else f"{formula}{scale}"
    several = [values for values in (mean, std) if len(set(values)) > 1]
    of = " (numbers are those of red, green and blue)" if several else ""
    bgr = " The network takes the channels in the order blue, green, red."
    return f"The input was {formula}{of}." + (bgr if facts.get("channels") == "bgr" else "")


def _by_channel(values: Sequence[float]) -> str:
    """Return the numbers of the channels, or the one that they share."""
    return f"{values[0]:g}" if len(set(values)) == 1 else f"({', '.join(f'{v:g}' for v in values)})"


def _what_was_recorded(layers: Sequence[str]) -> str:
    if not layers:
        return ""
    sketched = any("sketch" in layer for layer in layers)
    count = " Sketches are count sketches of the activations [charikar2002]." if sketched else ""
    return f"{'The layers were' if len(layers) > 1 else 'The layer was'} {joined(layers)}.{count}"


def _what_was_measured(facts: Mapping[str, Any], names: Sequence[str]) -> str:
    if not names:
        return ""
    lines = []
    if facts["kind"] != "accuracy":
        lines = [
            "Write a(o, p) for a layer's activation on object o at location p, and r for the "
            "reference location."
        ]
    if facts["kind"] in ("accuracy", "track"):
        lines += ["Write K for the number of classes and N for accuracy from chance (0) to 1."]
    lines = [" ".join(lines), ""]
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


def _notes(facts: Mapping[str, Any]) -> str:
    """Return the doubts, apart from what is for a paper."""
    notes = dict.fromkeys(str(each).rstrip(".") for each in facts.get("notes") or ())
    heading = "## Notes on the numbers\n\nThese are for the authors, not a part of the methods:\n\n"
    return heading + "\n".join(f"- {note}." for note in notes) if notes else ""


def _numerics(facts: Mapping[str, Any]) -> str:
    """Return by what, with which seed and when it was computed."""
    parts = []
    numerics = facts.get("numerics")
    if isinstance(numerics, Mapping):
        said = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in numerics.items())
        parts.append(f"Numerics: the network ran with {said}.")
    for key, what in (
        ("versions", "Activations were recorded"),
        ("measured_with", "It was measured"),
    ):
        found = facts.get(key)
        if isinstance(found, Mapping):
            named = [
                f"{package} {number}{f' [{SOFTWARE}]' if package == 'elsewhere' else ''}"
                for package, number in found.items()
            ]
            parts.append(f"{what} with {joined(named)}.")
    if facts.get("recorded_by"):
        parts.append(
            f"Activations were recorded by the command `{_command(facts['recorded_by'])}`."
        )
    if facts.get("command"):
        parts.append(f"The command was `{_command(facts['command'])}`.")
    if facts.get("created"):
        parts.append(f"It was made at {facts['created']}.")
    if "seed" in facts:
        parts.append(f"The seed was {facts['seed']}.")
    return " ".join(parts)


def _command(text: object) -> str:
    """Return a command line without the ways to files."""
    try:
        words = shlex.split(str(text))
    except ValueError:  # of a file that other software wrote
        return str(text)
    return shlex.join(_word(word) for word in words)


def _word(word: str) -> str:
    start = max(
        (n + 1 for n, sign in enumerate(word) if sign in "=," or word[:n] in ("folder", "hangul")),
        default=0,
    )
    return word[:start] + near(word[start:])


def _digests(facts: Mapping[str, Any]) -> str:
    known = {
        "weights_sha256": "weights",
        "object_digest": "objects",
        "identity": "recording" if "recording" in facts or "created" in facts else "run",
    }
    said = [f"{words} {facts[key]}" for key, words in known.items() if facts.get(key)]
    if each := facts.get("checkpoint_sha256"):
        digests = [each] if isinstance(each, str) else list(each)
        if len(digests) == 1:
            said.append(f"checkpoint {digests[0]}")
        else:
            over = hashlib.sha256("".join(digests).encode()).hexdigest()
            said.append(f"the {len(digests)} checkpoints, over their own in order, {over}")
    return f"SHA-256 of what was used: {'; '.join(said)}." if said else ""

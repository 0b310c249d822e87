"""The methods section of a paper, from what a recording or a result says of itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray

import elsewhere
from elsewhere.analyzer.bibliography import to_bibtex
from elsewhere.errors import InputError
from elsewhere.forms import layer_labels, weights_name
from elsewhere.measures.catalogue import measures
from elsewhere.storage import Recording

_SHARES = (
    "Intervals are 95 %: Wilson's, with Student's t and the number of independent answers that the "
    "variance {} amounts to; locations were not resampled."
)


_STATISTICS = {
    "frozen": "In training, the running statistics of normalisations were kept as they were.",
    "batch": "Running statistics of normalisations are exponential means gathered in training.",
    "recalibrated": "Running statistics of normalisations were measured anew for these weights, as "
    "means over batches of training presentations.",
}
"""What the batch_norm of a checkpoint means."""


def _intervals(facts: Mapping[str, Any]) -> str:
    """Return what intervals are over."""
    kind = str(facts.get("kind"))
    if kind == "accuracy":
        return _SHARES.format("between exemplars of a class")
    if kind.startswith("probe"):
        return _SHARES.format("between categories")
    units = "categories" if facts.get("sampled") == "category" else "objects"
    return (
        f"Intervals are 95 % delete-one jackknife intervals over {units} with Student's t "
        "[efron1993]; locations were not resampled."
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
    if not isinstance(source, xarray.Dataset):
        facts: Mapping[str, Any] = {**source.attributes, **_design_facts(source)}
        layers = [f"{layer.name} ({layer.form})" for layer in source.layers]
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
    procedure, cited = _procedure(facts, source)
    paragraphs = [
        _what_was_shown(facts),
        _what_was_recorded(facts, layers),
        procedure,
        _what_was_measured(facts, names),
        _notes(facts),
        _numerics(facts),
        _digests(facts),
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
            f"'{weights_name(facts) or 'unknown'}', in evaluation mode."
        )
        parts.append(_STATISTICS.get(str(facts.get("batch_norm")), ""))
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
    for name, (values, unit) in facts.get("changed", {}).items():
        of = "" if unit in ("", "1") else f" {unit}"
        neutral = f" (of the reference: {facts[f'reference_{name}']:g}{of})"
        listed = _joined(f"{value:g}" for value in values)
        parts.append(f"At each location it was shown at {name} {listed}{of}{neutral}.")
    if "reference_y" in facts and "reference_x" in facts:
        parts.append(
            f"The reference location was (y, x) = ({facts['reference_y']}, "
            f"{facts['reference_x']}), as in [biscione2021] the leftmost of the middle row unless "
            "chosen otherwise."
        )
    if "mean" in facts and "std" in facts:
        parts.append(
            f"The input was (pixel / 255 - {facts['mean']}) / {facts['std']} * "
            f"{facts.get('gain', 1)}, by channel"
            + (", in the order blue, green, red." if facts.get("channels") == "bgr" else ".")
        )
    return " ".join(filter(None, parts))


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
        sources = measures.get(name).sources if name in measures else ()
        cited = f" [{', '.join(sources)}]" if sources else ""
        lines.append(f"- {name}: {_formula(name, facts)}{cited}.")
    lines += ["", _intervals(facts)]
    return "\n".join(lines)


def _formula(name: str, facts: Mapping[str, Any]) -> str:
    """Return what a measure is: as registered, else as the result says."""
    if name in measures:
        return f"{measures.summary(name)}; {measures.get(name).formula}"
    said = (facts.get("formulas") or {}).get(name)
    return str(said or "a measure that is not registered here")


def _notes(facts: Mapping[str, Any]) -> str:
    notes = [str(note).rstrip(".") for note in facts.get("notes") or ()]
    return f"To be read with: {'; '.join(notes)}." if notes else ""


ATTRIBUTION = {
    "integrated-gradients": ("gradients along the line from the baseline", "sundararajan2017"),
    "occlusion": ("the mean change of the score over the windows that cover a pixel", "zeiler2014"),
    "grad-cam": ("a layer's channels, weighted by their mean gradients", "selvaraju2017"),
    "saliency": ("the gradient at the image", "simonyan2014"),
    "input-x-gradient": ("the gradient times the input", "shrikumar2017"),
    "gradient-shap": ("gradients at random points between baseline and image", "lundberg2017"),
    "deep-lift": ("differences from the baseline by the rescale rule", "shrikumar2017"),
    "feature-ablation": ("the change of the score when a cell is replaced", "zeiler2014"),
    "lrp": ("layer-wise relevance propagation by the epsilon rule", "bach2015"),
    "guided-backprop": ("the gradient, cut off at 0 at every rectifier", "springenberg2015"),
}
"""What each method of attribution gives, and its source."""

_BASELINES = {"empty": "the empty canvas", "black": "a black image", "blurred": "the blurred image"}
_COMPARING = ("integrated-gradients", "occlusion", "gradient-shap", "deep-lift", "feature-ablation")
_CAPTUM = ("integrated-gradients", "occlusion", "saliency", "input-x-gradient", "feature-ablation")


def _left_as_they_were(facts: Mapping[str, Any]) -> str:
    left = facts.get("not_randomised") or {}
    named = ", ".join(f"{name} ({size} values)" for name, size in left.items())
    return f", but for {named}" if named else ""


def _procedure(
    facts: Mapping[str, Any], source: Recording | xarray.Dataset
) -> tuple[str, set[str]]:
    """Return what was done to get a result, but for its measures, and the sources of that."""
    kind = str(facts.get("kind", ""))
    if kind in ("attribution", "attribution timeline"):
        said, cited = _attributed(facts)
        return f"{said} {_compared(facts)}", {*cited, "efron1993"}
    if kind == "attribution sanity":
        said, cited = _attributed(facts)
        more = (
            f"{_shown_at(facts)}Layers were randomised from the output to the input, one more at "
            "each stage, by shuffling the values of each parameter and statistic [adebayo2018]; "
            f"{facts.get('n_weights', 'all')} weights, all that the target uses, were random at "
            f"the last stage{_left_as_they_were(facts)}. Maps were compared on the object's pixels "
            "with those of the network as it is, at the same location and for the same class, by "
            "Pearson's correlation, the cosine, and the rank correlation of absolute values. A "
            f"method counts as unchanged if the latter is above {facts.get('threshold', 0.5)} with "
            f"all layers from {facts.get('judged_at', 'the middle')} up random, or all: "
            f"{'it was' if facts.get('unchanged') else 'it was not'}. {_intervals(facts)}"
        )
        return f"{said} {more}", {*cited, "adebayo2018", "efron1993"}
    if kind in ("probe", "probe-each"):
        return _probed(facts), set()
    if kind == "accuracy" and isinstance(source, xarray.Dataset):
        return _tested(facts, source), set()
    if kind == "track" and isinstance(source, xarray.Dataset):
        return _tracked(facts, source), set()
    if kind == "claims" and isinstance(source, xarray.Dataset):
        return _claimed(facts, source), set()
    return "", set()


def _tested(facts: Mapping[str, Any], result: xarray.Dataset) -> str:
    """Return what was classified, by what was trained where."""
    parts = [f"The head had {facts.get('n_classes')} classes; chance is {facts.get('chance'):.3g}."]
    if "held_out" in result:
        held_out = int(result["held_out"].sum())
        n = result.sizes["object"]
        parts.append(
            f"Of the {n} exemplars {n - held_out} had been trained on ('same') and {held_out} had "
            "not ('held-out'); their accuracies are apart, each the mean over classes."
        )
    places = [
        (int(y), int(x))
        for y, x in zip(result["trained_y"].values, result["trained_x"].values, strict=True)
    ]
    if places:
        parts.append(f"Trained locations (y, x): {_joined(places)}.")
    if facts.get("phase"):
        parts.append(
            f"The checkpoint was {facts.get('checkpoint', '')} of phase '{facts['phase']}'."
        )
    return " ".join(parts)


def _tracked(facts: Mapping[str, Any], result: xarray.Dataset) -> str:
    """Return which checkpoints were measured, and how."""
    phases = dict.fromkeys(str(name) for name in result["phase"].values)
    counts = [f"{name} ({int((result['phase'] == name).sum())})" for name in phases]
    trained = [tuple(place) for place in facts.get("trained") or ()]
    at = f" at (y, x) = {_joined(trained)}" if trained else ""
    return (
        f"Measured were the checkpoints of the curriculum '{facts.get('curriculum')}', by phase "
        f"{_joined(counts)}; the last phase trained {facts.get('n_classes')} classes{at}. At each, "
        "accuracy is that of the exemplars of its own phase, trained on and held out apart, and "
        f"similarity ({facts.get('metric')}) is that of the objects above."
    )


def _claimed(facts: Mapping[str, Any], result: xarray.Dataset) -> str:
    """Return at which scale claims were judged, and by how many seeds."""
    seeds = [int(seed) for seed in result["seed"].values]
    systems = dict.fromkeys(str(system) for system in result["system"].values)
    return (
        f"The claims of [biscione2021] were judged at the scale '{facts.get('scale')}', on "
        f"{_joined(systems)}, with {len(seeds)} seeds ({_joined(seeds)}), each of which redraws "
        "weights, classes, order and places. Intervals are 95 % intervals over seeds with "
        "Student's t, paired across conditions; a claim holds or fails only where the whole "
        "interval lies on one side of its threshold."
    )


def _shown_at(facts: Mapping[str, Any]) -> str:
    n = facts.get("n_locations")
    return f"Maps were made at {n} locations of the canvas. " if n else ""


def _attributed(facts: Mapping[str, Any]) -> tuple[str, set[str]]:
    method = str(facts.get("method", ""))
    gives, source = ATTRIBUTION.get(method, ("", ""))
    cited = {source} - {""}
    parts = [
        f"The target '{facts.get('target', 'unknown')}' was attributed to the input's pixels, "
        f"summed over colours, by {method}{f' [{source}]' if source else ''}: {gives}."
    ]
    if facts.get("layer"):
        parts.append(f"The layer was {facts['layer']}.")
    if options := facts.get("options"):
        said = ", ".join(f"{name} = {value}" for name, value in options.items())
        parts.append(f"Options: {said}.")
    if (base := str(facts.get("baseline") or "")) and method in _COMPARING:
        word, _, sigma = base.partition(":")
        blur = f" (sigma {sigma} px)" if sigma else ""
        parts.append(f"The baseline was {_BASELINES.get(word, word)}{blur}.")
    if rules := facts.get("rules"):
        said = ", ".join(f"{name} ({count})" for name, count in rules.items())
        parts.append(f"Rules were applied to every operation between image and score: {said}.")
    if method in _CAPTUM and facts.get("engine") != "incremental":
        cited.add("kokhlikyan2020")
        parts.append("Maps were computed with Captum [kokhlikyan2020].")
    elif facts.get("engine") == "incremental":
        parts.append("Of each covered image only what the window changes was computed.")
    if extras := facts.get("extras"):
        cited.add("yeh2019")
        parts.append(
            f"{' and '.join(map(str, extras)).capitalize()} [yeh2019] took "
            f"{facts.get('n_perturbations')} perturbations each, the same at every location."
        )
    return " ".join(parts), cited


def _compared(facts: Mapping[str, Any]) -> str:
    margin = f", the box widened by {facts['margin']} px," if "margin" in facts else ""
    vanishing = int(facts.get("n_vanishing") or 0)
    left_out = f" {vanishing} maps that vanish were left out." if vanishing else ""
    return (
        f"Maps were brought to the object's frame{margin} and compared with that at the reference "
        "location over the pixels on the canvas in both: Pearson's correlation, the cosine, and "
        "the rank correlation of absolute values, beside the same with objects of other categories."
        f"{left_out} {_intervals(facts)}"
    )


def _probed(facts: Mapping[str, Any]) -> str:
    strength = facts.get("strength_parameter")
    folds, shuffles = int(facts.get("n_folds") or 0), int(facts.get("n_shuffles") or 0)
    parts = [
        f"Linear probes ({facts.get('probe', 'unknown')}) for {facts.get('n_classes')} classes "
        f"were trained on {facts.get('n_trained')} objects at {facts.get('train_at')} and tested "
        f"at every location; chance is {facts.get('chance', float('nan')):.3g}."
    ]
    if strength and folds:
        parts.append(f"{strength} was chosen by cross-validation in {folds} folds.")
    if controls := facts.get("controls"):
        times = f" ({shuffles} shuffles)" if shuffles else ""
        parts.append(f"Controls: {_joined(controls)}{times}.")
    return " ".join([*parts, _intervals(facts)])


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

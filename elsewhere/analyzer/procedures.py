"""What was done to get a result of each kind, in sentences for a methods section."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray

from elsewhere.analyzer.training_facts import said_of_phases, said_of_training

Facts = Mapping[str, Any]


def joined(values: Iterable[Any]) -> str:
    """Return values as a list in words."""
    words = [str(value) for value in values] or ["none"]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


_SHARES = (
    "Intervals are 95 %: Wilson's, with Student's t and the number of independent answers that the "
    "variance {} amounts to; locations were not resampled."
)


def intervals(facts: Mapping[str, Any]) -> str:
    """Return what intervals are over."""
    kind = str(facts.get("kind"))
    if kind == "accuracy":
        return _SHARES.format("between exemplars of a class")
    if kind.startswith("probe"):
        return _SHARES.format("between categories")
    units = "categories" if facts.get("sampled") == "category" else "objects"
    of = " of what is measured of layers" if kind == "track" else ""
    return (
        f"Intervals{of} are 95 % delete-one jackknife intervals over {units} with Student's t "
        "[efron1993]; locations were not resampled."
    )


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


def _left_as_they_were(facts: Facts) -> str:
    left = facts.get("not_randomised") or {}
    named = ", ".join(f"{name} ({size} values)" for name, size in left.items())
    return f", but for {named}" if named else ""


def _sanity(facts: Facts, result: xarray.Dataset) -> str:
    said = _attributed(facts)
    more = (
        f"{_shown_at(facts)}Layers were randomised from the output to the input, one more at "
        "each stage, by shuffling the values of each parameter and statistic [adebayo2018]; "
        f"{facts.get('n_weights', 'all')} weights, all that the target uses, were random at "
        f"the last stage{_left_as_they_were(facts)}. Maps were compared on the object's pixels "
        "with those of the network as it is, at the same location and for the same class, by "
        "Pearson's correlation, the cosine, and the rank correlation of absolute values. A "
        f"method counts as unchanged if the latter is above {facts.get('threshold', 0.5)} with "
        f"all layers from {facts.get('judged_at', 'the middle')} up random, or all: "
        f"{'it was' if facts.get('unchanged') else 'it was not'}. {intervals(facts)}"
    )
    return f"{said} {more}"


def _maps(facts: Facts, result: xarray.Dataset) -> str:
    return f"{_attributed(facts)} {_compared(facts)}"


def _timeline(facts: Facts, result: xarray.Dataset) -> str:
    return f"{_checkpoints(facts, result)} {_maps(facts, result)}"


def _similarity(facts: Facts, result: xarray.Dataset) -> str:
    metric = str(facts.get("metric", "cosine")).partition("(")[0]
    more = (
        " The protocol was that of the published code: one exemplar of each class, the middle row."
        if facts.get("protocol") == "biscione-bowers"
        else ""
    )
    return (
        f"The code of each object at each location was compared ({metric}) with its own code at "
        "the reference location (same object elsewhere), beside that of objects of other "
        "categories there (other object elsewhere) and of two objects in one place (other "
        f"object, same place).{more}"
    )


def _measures(facts: Facts, result: xarray.Dataset) -> str:
    at = "the reference location" if facts.get("against") == "reference" else "all other locations"
    return f"Codes at each location were compared with those at {at}, where a measure compares."


def _aligned(facts: Facts, result: xarray.Dataset) -> str:
    return (
        "Feature maps were moved back with the object by its displacement in cells (mode "
        f"'{facts.get('shift', 'exact')}') and compared with those at the reference location over "
        "the cells around the object, beside the same with objects of other categories."
    )


def _dissimilar(facts: Facts, result: xarray.Dataset) -> str:
    return (
        "The dissimilarity of the codes of every pair of objects in the same place was taken at "
        f"each location ({facts.get('dissimilarity')}) [kriegeskorte2008]."
    )


def _readout(facts: Facts, result: xarray.Dataset) -> str:
    places = [tuple(place) for place in facts.get("trained") or ()]
    classes = ", ".join(map(str, result["class"].values))
    return (
        f"A linear probe ({facts.get('probe')}, strength {facts.get('strength')}) was trained on "
        f"the activations of layer {facts.get('layer')} with the objects at (y, x) = "
        f"{joined(places)} for the classes {classes}; its weights are for raw units."
    )


def _summarised(facts: Facts, result: xarray.Dataset) -> str:
    phase = facts.get("phase")
    return (
        f"Of phase '{phase}' the onset is the first step from which on normalised accuracy off the "
        "trained locations stays above 0.1; the half-way step is that of half the gain, "
        "interpolated in log(1 + step); a loss is from the first checkpoint that reached the "
        "criterion to the last one."
    )


def _checkpoint(facts: Facts, result: xarray.Dataset) -> str:
    return (
        f"The checkpoint was that of step {facts.get('step')} of phase '{facts.get('phase')}'. "
        f"{said_of_training(facts)}"
    ).strip()


def _run(facts: Facts, result: xarray.Dataset) -> str:
    return f"{said_of_training(facts)} {facts['n_checkpoints']} checkpoints were kept."


def said_of(facts: Facts, result: xarray.Dataset) -> str:
    """Return what was done to get a result; nothing of a kind that is not known."""
    procedure = PROCEDURES.get(str(facts.get("kind")))
    return "" if procedure is None else procedure(facts, result)


def _tested(facts: Facts, result: xarray.Dataset) -> str:
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
    if "distance" in result:
        parts.append(f"Trained locations were many; {len(places)} of them were tested.")
    elif places:
        parts.append(f"Trained locations (y, x): {joined(places)}.")
    if facts.get("phase"):
        parts.append(
            f"The checkpoint was {facts.get('checkpoint', '')} of phase '{facts['phase']}'."
        )
    return " ".join([*parts, said_of_training(facts)]).rstrip()


def _side_by_side(facts: Facts, result: xarray.Dataset) -> str:
    """Return which results were set side by side, and how they differ from the first."""
    called = [str(name) for name in result["result"].values]
    layers = {
        "name": "Layers were joined by name.",
        "depth": "Layers were joined by relative depth, 0 at the first and 1 at the last one of "
        "the main branch; between depths, numbers were interpolated linearly.",
    }
    parts = [
        f"The {facts.get('compared')} of {joined(called)} were compared.",
        layers.get(str(facts.get("joined_by")), ""),
        f"Differences are each one's number minus that of {called[0]}; their intervals are paired "
        "over what both share.",
    ]
    return " ".join(filter(None, parts))


def _tracked(facts: Facts, result: xarray.Dataset) -> str:
    n = facts.get("per_category")
    of = "some exemplars" if n is None else f"up to {n} exemplars"
    tested = (
        "accuracy is that which training itself found at the trained locations"
        if n == 0
        else f"accuracy is that of {of} of each class of its phase that were trained on, and apart "
        "from these of as many that were held out, each the mean over classes"
    )
    return (
        f"{_checkpoints(facts, result)} At each, {tested}, and similarity ({facts.get('metric')}) "
        "is that of the objects above, compared with their codes at the reference location."
    )


def _checkpoints(facts: Facts, result: xarray.Dataset) -> str:
    """Return which checkpoints were measured, and how they were trained."""
    phases = dict.fromkeys(str(name) for name in result["phase"].values)
    counts = [f"{name} ({int((result['phase'] == name).sum())})" for name in phases]
    trained = [tuple(place) for place in facts.get("trained") or ()]
    at = f" at (y, x) = {joined(trained)}" if trained else ""
    return (
        f"{said_of_training(facts)} Measured were the checkpoints of the curriculum "
        f"'{facts.get('curriculum')}', by phase {joined(counts)}; the last phase trained "
        f"{facts.get('n_classes')} {'class' if facts.get('n_classes') == 1 else 'classes'}{at}."
    ).lstrip()


def _claimed(facts: Facts, result: xarray.Dataset) -> str:
    """Return at which scale claims were judged, and by how many seeds."""
    seeds = [int(seed) for seed in result["seed"].values]
    systems = dict.fromkeys(str(system) for system in result["system"].values if system)
    judged = [
        f"- {claim} ({part}, {pair}{f', {exemplars} exemplars' if exemplars else ''}) holds where "
        f"its value is {'above' if way == '>' else 'below'} {threshold:g}."
        for claim, part, pair, exemplars, way, threshold in zip(
            *(result[name].values for name in ("claim", "part", "pair", "exemplars")),
            result["direction"].values,
            result["threshold"].values,
            strict=True,
        )
    ]
    conditions = [
        f"Condition '{name}': {said_of_phases(phases)}"
        for name, phases in (facts.get("conditions") or {}).items()
    ]
    said = (
        f"The claims of [biscione2021] were judged at the scale '{facts.get('scale')}', on "
        f"{joined(systems)}, with "
        f"{len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'} ({joined(seeds)}), each of which "
        "redraws weights, classes, order and places. Intervals are 95 % intervals over seeds with "
        "Student's t, paired across conditions; a claim holds or fails only where the whole "
        "interval lies on one side of its threshold."
    )
    return "\n\n".join([said, *conditions, "\n".join(judged)])


def _shown_at(facts: Facts) -> str:
    n = facts.get("n_locations")
    return f"Maps were made at {n} locations of the canvas. " if n else ""


def _target(text: str) -> str:
    """Return a target, as it is asked for, in words that begin a sentence."""
    kind, _, rest = text.partition(":")
    if kind in ("logit", "probability"):
        choice = {
            "predicted": "the class that the network predicts",
            "reference": "the class that the network predicts at the reference",
            "true": "the object's class",
        }
        return f"The {kind} of {choice.get(rest or 'true', f'class {rest!r}')}"
    return f"The target '{text}'"


def _attributed(facts: Facts) -> str:
    method = str(facts.get("method", ""))
    gives, source = ATTRIBUTION.get(method, ("", ""))
    parts = [
        f"{_target(str(facts.get('target', 'unknown')))} was attributed to the input's pixels, "
        f"summed over colours, by {method}{f' [{source}]' if source else ''}: {gives}."
    ]
    if facts.get("layer"):
        parts.append(f"The layer was {facts['layer']}.")
    if options := facts.get("options"):
        said = ", ".join(f"{name} = {value}" for name, value in options.items())
        parts.append(f"Its options were {said}.")
    if (base := str(facts.get("baseline") or "")) and method in _COMPARING:
        word, _, sigma = base.partition(":")
        blur = f" (sigma {sigma} px)" if sigma else ""
        parts.append(f"The baseline was {_BASELINES.get(word, word)}{blur}.")
    if rules := facts.get("rules"):
        said = ", ".join(f"{name} ({count})" for name, count in rules.items())
        parts.append(f"Rules were applied to every operation between image and score: {said}.")
    if method in _CAPTUM and facts.get("engine") != "incremental":
        parts.append("Maps were computed with Captum [kokhlikyan2020].")
    elif facts.get("engine") == "incremental":
        parts.append("Of each covered image only what the window changes was computed.")
    if extras := facts.get("extras"):
        parts.append(
            f"{' and '.join(map(str, extras)).capitalize()} [yeh2019] took "
            f"{facts.get('n_perturbations')} perturbations each, the same at every location."
        )
    return " ".join(parts)


def _compared(facts: Facts) -> str:
    margin = f", the box widened by {facts['margin']} px," if "margin" in facts else ""
    vanishing = int(facts.get("n_vanishing") or 0)
    left_out = f" {vanishing} maps that vanish were left out." if vanishing else ""
    return (
        f"Maps were brought to the object's frame{margin} and compared with that at the reference "
        "location over the pixels on the canvas in both: Pearson's correlation, the cosine, and "
        "the rank correlation of absolute values, beside the same with objects of other categories."
        f"{left_out} {intervals(facts)}"
    )


_CONTROLS = {
    "untrained": "the same network with random weights",
    "pixels": "the pixels instead of a layer",
    "shuffled": "a control task, labels shuffled over exemplars [hewitt2019]{}",
}


def _controls(facts: Facts, result: xarray.Dataset) -> list[str]:
    """Return the controls that have values and control for something; notes say why others not."""
    none = {part.partition(": ")[0] for part in str(facts.get("reason") or "").split("; ")}
    times = f" ({int(facts.get('n_shuffles') or 0)} times)"
    return [
        _CONTROLS[name].format(times)
        for name in facts.get("controls") or ()
        if name not in none
        and f"{name}_accuracy_at" in result
        and bool(result[f"{name}_accuracy_at"].notnull().any())
    ]


def _out(result: xarray.Dataset) -> str:
    """Return how many exemplars were held out, in all and of a category."""
    held_out = result["held_out"].values.astype(bool)
    if not held_out.any():
        return ""
    each = Counter(result["category"].values[held_out].tolist()).values()
    least, most = min(each), max(each)
    count = f"{most}" if least == most else f"{least} to {most}"
    return f" {held_out.sum()} more objects, {count} of each category, were held out."


def _probed(facts: Facts, result: xarray.Dataset) -> str:
    strength, folds = facts.get("strength_parameter"), int(facts.get("n_folds") or 0)
    places = [tuple(place) for place in facts.get("trained") or ()]
    from elsewhere.probes.kinds import probe_kinds  # noqa: PLC0415  (scikit-learn)

    kind = str(facts.get("probe", "unknown"))
    what = f"{kind}: {probe_kinds.summary(kind)}" if kind in probe_kinds else kind
    at = f"(y, x) = {joined(places)}" if places else "each location in turn"
    parts = [
        f"Linear probes ({what}) for {facts.get('n_classes')} classes were trained on "
        f"{facts.get('n_trained')} objects at {at} and tested at every location; chance is "
        f"{facts.get('chance', float('nan')):.3g}.{_out(result)} Exemplars "
        "that they were trained on and held-out exemplars are reported apart, and so are the "
        "accuracies on, off and far from the trained locations (an object's size or more). Units "
        "were standardised by their means and deviations over the training samples, and probes "
        "were fitted in the span of these, where the best ones lie [kimeldorf1971]."
    ]
    if strength and folds:
        parts.append(f"The strength {strength} was chosen by cross-validation in {folds} folds.")
    elif strength and "strength" in result:
        used = np.unique(result["strength"].values)
        parts.append(
            f"The strength {strength} was {joined(f'{each:g}' for each in used[used == used])}."
        )
    if controls := _controls(facts, result):
        parts.append(f"The same was done with controls: {joined(controls)}.")
    return " ".join([*parts, intervals(facts)])


PROCEDURES: Mapping[str, Callable[[Facts, xarray.Dataset], str]] = MappingProxyType(
    {
        "accuracy": _tested,
        "aligned": _aligned,
        "attribution": _maps,
        "attribution sanity": _sanity,
        "attribution timeline": _timeline,
        "checkpoint measures": _checkpoint,
        "claims": _claimed,
        "comparison": _side_by_side,
        "dissimilarities": _dissimilar,
        "measures": _measures,
        "probe": _probed,
        "probe-each": _probed,
        "readout": _readout,
        "run": _run,
        "similarity": _similarity,
        "track": _tracked,
        "track summary": _summarised,
    }
)
"""By kind of result: what was done to get it."""

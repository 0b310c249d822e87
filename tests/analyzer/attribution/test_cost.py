"""What maps are said to cost is what they take: images are counted at the network."""

import pytest

from elsewhere.analyzer.attribution import AttributionSettings
from elsewhere.analyzer.attribution.cost import cost_of
from elsewhere.analyzer.attribution.objects import ObjectRun


@pytest.mark.parametrize(
    ("method", "options", "more"),
    [
        ("saliency", {}, {}),
        ("saliency", {}, {"extras": ("sensitivity", "infidelity"), "n_perturbations": 3}),
        ("integrated-gradients", {"n_steps": 5, "tolerance": 1e9}, {}),
        ("integrated-gradients", {"n_steps": 5, "tolerance": 1e9}, {"baseline": "blurred"}),
        ("deep-lift", {"tolerance": 1e9}, {}),
        ("gradient-shap", {"n_samples": 8}, {}),
        ("occlusion", {"window": 4, "stride": 2}, {}),
    ],
)
def test_images_are_counted(make_sweep, method, options, more):
    sweep = make_sweep(grid="2x4", engine="dense")
    settings = AttributionSettings(method=method, target="logit:1", options=options, **more)
    run = ObjectRun(sweep, settings, classes=None, max_memory=2**31)
    cost = cost_of(run, 8)
    assert cost.maps == 8
    assert cost.seconds > 0
    counts = {"forward": 0, "backward": 0}

    def passed(_, images):
        counts["forward"] += len(images[0])
        if images[0].requires_grad:
            images[0].register_hook(
                lambda slopes: counts.update(backward=counts["backward"] + len(slopes))
            )

    handle = run.explainer.network.register_forward_pre_hook(passed)
    run.measure(0)
    handle.remove()
    if cost.at_most or method == "deep-lift":
        assert counts["forward"] <= cost.forward
    else:
        assert counts["forward"] == cost.forward
        assert counts["backward"] == cost.backward


def test_the_words_name_images_and_time(make_sweep):
    settings = AttributionSettings(method="saliency", target="logit:1")
    run = ObjectRun(make_sweep(grid="2x4"), settings, classes=None, max_memory=2**31)
    text = str(cost_of(run, 8000))
    assert text.startswith("8,000 maps: about 16,000 images through the network and 8,000 back")
    assert "by a step of" in text

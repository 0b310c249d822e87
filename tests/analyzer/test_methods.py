"""The methods section says of similarities and probes what the result's own numbers are."""

import pytest

from elsewhere.analyzer import describe_methods, similarity
from elsewhere.axes import Axis
from elsewhere.models import load_model
from elsewhere.probes import probe
from elsewhere.recording import Sweep
from elsewhere.stimuli import Canvas, Grid, load_objects


@pytest.fixture(scope="module")
def sweep():
    canvas, objects = Canvas(24, 7), load_objects("glyphs", size=7, categories=3, per_category=4)
    model = load_model("small-cnn", model_args={"channels": "4-8", "canvas": 24})
    grid = Grid.parse("2x3", canvas)
    return Sweep(model, objects, canvas=canvas, grid=grid, layers=["fc3", "logits"])


def said_of(result):
    said, _, sources = describe_methods(result).partition("```bibtex")
    for fact in ("12 objects of 3 categories", "The layers were fc3 and logits.", "24 x 24 px"):
        assert fact in said
    assert result.attrs["weights_sha256"] in said
    return said, sources


@pytest.mark.parametrize(
    ("metric", "removed"), [("cosine", "|a(o,r)|) ["), ("pearson", "less each vector's mean over")]
)
def test_similarity(sweep, metric, removed):
    said, sources = said_of(similarity(sweep, metric=metric))
    assert f"- {metric}: " in said
    assert removed in said
    assert "- G: " in said
    assert f"(y, x) = {sweep.reference}" in said
    assert "jackknife intervals over categories" in said
    assert {"biscione2021", "efron1993"} <= {
        line.partition("{")[2].rstrip(",") for line in sources.splitlines() if line.startswith("@")
    }


def test_axes_that_change_objects_are_told(sweep):
    axes = [Axis.parse("rotation=0,90", unit="degree"), Axis.parse("scale=0.5,1")]
    shown = Sweep(
        sweep.model, sweep.objects, canvas=sweep.canvas, grid="2x3", layers=["fc3", "logits"],
        axes=axes,
    )  # fmt: skip
    said, _ = said_of(similarity(shown))
    assert "shown at rotation 0 and 90 degree (of the reference: 0 degree)." in said
    assert "shown at scale 0.5 and 1 (of the reference: 1)." in said
    assert "shown at" not in said_of(similarity(sweep))[0]


@pytest.mark.parametrize(("kind", "strength"), [("logistic", "C was chosen"), ("ridge", "alpha")])
def test_probes(sweep, kind, strength):
    result = probe(sweep, train_at="left", kind=kind, controls=("shuffled",), n_shuffles=2, seed=4)
    said, _ = said_of(result)
    trained = result.attrs["n_trained"]
    assert f"Linear probes ({kind}) for 3 classes were trained on {trained} objects at left" in said
    assert "chance is 0.333" in said
    assert strength in said
    assert f"in {result.attrs['n_folds']} folds" in said
    assert "Controls: shuffled (2 shuffles)." in said
    assert "Seed 4." in said
    for note in result.attrs["notes"]:
        assert note.rstrip(".") in said

"""The methods section says of similarities and probes what the result's own numbers are."""

import re
import shlex
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from elsewhere.analyzer import describe_methods, similarity
from elsewhere.analyzer.bibliography import SOFTWARE
from elsewhere.analyzer.training_facts import phase_facts, said_of_phases
from elsewhere.axes import Axis
from elsewhere.forms import network_name
from elsewhere.models import InputTransform, load_model
from elsewhere.models.transform import named_transform
from elsewhere.probes import probe
from elsewhere.recording import Sweep, record
from elsewhere.stimuli import Canvas, Grid, load_objects
from elsewhere.storage import open_recording
from elsewhere.training import Augment, Choice, Criterion, Phase


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
    keys = re.findall(r"^@\w+{(\w+),", sources, re.M)
    assert set(keys) == {"biscione2021", "efron1993", SOFTWARE}


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
    assert f"Linear probes ({kind}: " in said
    assert f"for 3 classes were trained on {trained} objects at (y, x) = (20, 3) and" in said
    assert "chance is 0.333" in said
    assert strength in said
    assert f"in {result.attrs['n_folds']} folds" in said
    assert "a control task, labels shuffled over exemplars [hewitt2019] (2 times)." in said
    assert "The seed was 4." in said
    for note in result.attrs["notes"]:
        assert note.rstrip(".") in said


def test_a_control_that_was_not_had_is_none_of_the_paper(sweep):
    result = probe(sweep, train_at="left", controls=("shuffled", "pixels"), n_shuffles=2)
    result["pixels_accuracy_at"][:] = float("nan")
    result.attrs["notes"] = ["pixels: /data/run.h5 holds none; add --something"]
    paper, _, notes = said_of(result)[0].partition("## Notes on the numbers")
    assert "controls: a control task" in paper
    assert "the pixels instead" not in paper
    assert "/data/run.h5" not in paper
    assert "- pixels: run.h5 holds none; add --something." in notes
    held_out = int(result["held_out"].sum())
    assert f"{held_out} more objects, {held_out // 3} of each category, were held out." in paper


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (None, "= (20, 3), the leftmost location of the row below the middle.\n"),
        ((3, 12), "= (3, 12).\n"),
        ((3, 3), "= (3, 3), the leftmost location of row 1 of 2.\n"),
    ],
)
def test_the_reference_is_said_as_it_was_chosen(sweep, place, said):
    shown = sweep if place is None else sweep.at(place)
    assert said in said_of(similarity(shown))[0]


def test_objects_of_a_folder(tmp_path):
    pixels = np.full((9, 9, 3), 255, np.uint8)
    pixels[2:6, 2:6] = 30
    for name in "abc":
        (tmp_path / "white" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "white" / name / "1.png")
    objects = load_objects(
        f"folder:{tmp_path / 'white'}", size=7, background_color=(255, 255, 255),
        background_tolerance=3,
    )  # fmt: skip
    model = load_model("small-cnn", model_args={"channels": "4-8", "canvas": 24})
    shown = Sweep(model, objects, canvas=Canvas(24, 7), grid="2x3", layers=["fc3"])
    said = describe_methods(similarity(shown))
    assert "of the folder 'white', 7 px large" in said
    assert "by the colour (R, G, B) = (255, 255, 255), within 3 levels, where an image" in said
    assert str(tmp_path) not in said
    assert "so that the longer side was 7 px, their proportions kept." in said


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (InputTransform(), "The input was pixel / 255.\n"),
        (InputTransform(gain=6.0), "The input was pixel / 255 * 6.\n"),
        (
            named_transform("imagenet", None, ""),
            "The input was (pixel / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225) (numbers "
            "are those of red, green and blue).\n",
        ),
        (
            named_transform("caffe-bgr", None, ""),
            "* 255 (numbers are those of red, green and blue). The network takes the channels in "
            "the order blue, green, red.\n",
        ),
        (InputTransform(mean=(0.5, 0.5, 0.5)), "The input was pixel / 255 - 0.5.\n"),
    ],
)
def test_the_input_is_a_formula_without_what_changes_nothing(sweep, tmp_path, transform, said):
    model = replace(sweep.model, transform=transform)
    shown = Sweep(model, sweep.objects, canvas=sweep.canvas, grid="2x3", layers=["fc3"])
    record(shown, tmp_path / "r.h5")
    with open_recording(tmp_path / "r.h5") as recording:
        for source in (recording, similarity(recording), similarity(shown)):
            assert said in describe_methods(source)


def test_no_way_to_a_file_stands_in_the_text(sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = replace(sweep.model, name="/home/anna/my nets/own.py:Net", weights="none")
    shown = Sweep(model, sweep.objects, canvas=sweep.canvas, grid="2x3", layers=["fc3"])
    result = similarity(shown)
    line = shlex.join(
        ["elsewhere", "similarity", "/home/anna/my nets/own.py:Net", "--out=~/anna/a.nc",
         "--objects", "folder:/home/anna/white", "--weights", str(tmp_path / "w" / "w.pth")]
    )  # fmt: skip
    result.attrs["command"] = line
    result.attrs["notes"] = ["/home/anna/runs/r.h5 is not finished", "see https://a.org/anna/x"]
    said = describe_methods(result)
    assert (
        "own.py:Net (channels=4-8, canvas=24) with weights as its factory makes them (seed 0)"
        in said
    )
    assert (
        "`elsewhere similarity own.py:Net --out=a.nc --objects folder:white --weights w/w.pth`"
        in said
    )
    assert "- r.h5 is not finished." in said
    assert said.count("anna") == 1  # of the address
    assert network_name(result.attrs) == "own.py:Net"


def test_phases_are_said_in_words():
    phases = (
        Phase("one", "glyphs", categories=Choice(count=5, skip=300), steps=3, after="none",
              dropout=0.2, rates={"logits": 25.0}, new_head=True),
        Phase("two", "folder:/data/mine", same_categories_as="one", steps=3,
              environment="one:3,4", trainable=("fc*",)),
        Phase("three", "glyphs", categories=("a", "b"), steps=3, optimiser="sgd", clip=1.0,
              label_smoothing=0.1, augment=Augment(contrast=0.5, blur=0.25), axes=("scale=1,2",),
              criterion=Criterion(0.9)),
    )  # fmt: skip
    said = said_of_phases(phase_facts(phases))
    for part in (
        "trained 5 categories (in their drawn order, behind the first 300) of 'glyphs'",
        "placed at locations drawn anew for each presentation from all of the canvas",
        "that of logits times 25, schedule constant, dropout 0.2)",
        "It began with the network's first weights. Its last layer was new.",
        "trained the categories of phase 'one' of 'mine'",
        "placed at (y, x) = (3, 4)",
        "Only fc* learnt.",
        "for 3 steps of 32 images with adam",
        "trained 2 categories (a, b) of 'glyphs'",
        "for up to 3 steps of 32 images with sgd (learning rate 0.001, schedule constant, axes "
        "drawn for each presentation scale=1,2, momentum 0.9, label smoothing 0.1, largest norm of "
        "the gradient 1.0, changes of appearance contrast 0.5 and blur 0.25).",
    ):
        assert part in said
    assert "'none'" not in said

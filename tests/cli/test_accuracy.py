"""`accuracy` of any network with class scores, live and recorded, against plain torch."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from elsewhere.models import load_model
from elsewhere.stimuli import Canvas, load_objects
from elsewhere.storage import load_result

SHOWN = ("--objects", "novel", "--categories", "3", "--per-category", "3")
NET = ("small-cnn", "--model-arg", "channels=4-8", "--model-arg", "canvas=24",
       "--model-arg", "num_classes=4")  # fmt: skip
CANVAS = ("--object-size", "8", "--grid", "2x3")
NAMES = ("other", "03a", "01a", "02a")

FACTORIES = """
import torch
from torch import nn

class Turned(nn.Module):
    '''Its answer is the smallest score of its last layer.'''
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 5, stride=3), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(196, 4)
        self.canvas_size = 24

    def forward(self, images):
        return -self.head(self.body(images))

class Pair(Turned):
    def forward(self, images):
        found = self.head(self.body(images))
        return found, found + 1

def maps():
    network = nn.Sequential(nn.Conv2d(3, 4, 5, stride=3), nn.ReLU())
    network.canvas_size = 24
    return network
"""


@pytest.fixture
def labels(here):
    (here / "labels.txt").write_text("\n".join(NAMES) + "\n")
    (here / "odd_heads.py").write_text(FACTORIES)
    return ("--labels", "labels.txt")


def answers(module, seed=0):
    """What plain torch calls each object at each place, (object, y, x), and by which margin."""
    canvas = Canvas(24, 8)
    objects = load_objects("novel", size=8, categories=3, per_category=3, seed=seed)
    first, last = canvas.valid[0], canvas.valid[-1]
    ys, xs = (np.floor(np.linspace(first, last, n) + 0.5).astype(int) for n in (2, 3))
    patches = torch.from_numpy(objects.patches((0, 0, 0))).permute(0, 3, 1, 2) / 255
    scores = torch.zeros(len(objects), 2, 3, 4)
    for i, y in enumerate(ys):
        for j, x in enumerate(xs):
            images = torch.zeros(len(objects), 3, 24, 24)
            images[:, :, y - 4 : y + 4, x - 4 : x + 4] = patches
            scores[:, i, j] = module.eval()(images).detach()
    true = torch.tensor([NAMES.index(name) for name in objects.categories])[:, None, None, None]
    own = scores.gather(3, true.expand(-1, 2, 3, 1))[..., 0]
    others = scores.scatter(3, true.expand(-1, 2, 3, 1), -torch.inf).amax(3)
    return scores.argmax(3).numpy(), (own - others).numpy()


def small():
    arguments = {"channels": "4-8", "canvas": 24, "num_classes": 4}
    return load_model("small-cnn", model_args=arguments, seed=5).module


@pytest.mark.parametrize("engine", ["dense", "incremental"])
def test_any_network_live_by_either_engine(run, labels, engine):
    told = run("accuracy", *NET, *SHOWN, *CANVAS, *labels, "--seed", 5, "--engine", engine,
               "--trained-at", "12,12", "--out", "a.nc")  # fmt: skip
    found = load_result("a.nc")
    choice, margin = answers(small(), seed=5)
    np.testing.assert_array_equal(found["choice"], choice)
    np.testing.assert_allclose(found["margin"], margin, atol=1e-6)
    assert found["class"].values.tolist() == list(NAMES)
    assert found["trained_y"].values.tolist() == [12]
    assert np.isfinite(found["accuracy_at"].sel(exemplars="same", where="on"))
    assert found.attrs["numerics"]["engine"] == engine
    assert "was trained on is not known" in told.err


def test_a_recording_gives_what_the_live_network_gives(run, refuse, labels):
    run("record", *NET, *SHOWN, *CANVAS, "--seed", 5, "--layers", "fc3,logits", "--out", "r.h5")
    run("accuracy", "r.h5", *labels, "--trained-at", "left", "--out", "r.nc")
    choice, margin = answers(small(), seed=5)
    found = load_result("r.nc")
    np.testing.assert_array_equal(found["choice"], choice)
    np.testing.assert_allclose(found["margin"], margin, atol=1e-6)
    refuse("accuracy", "r.h5", "--out", "x.nc", says=("r.h5", "--labels FILE"))
    refuse("accuracy", "r.h5", *labels, "--layer", "fc3", "--out", "x.nc", says="256 values per")
    refuse("accuracy", "r.h5", *labels, "--trained-at", "12,13", "--out", "x.nc", says="nearest")
    refuse("accuracy", "r.h5", *labels, "--workers", 2, "--out", "x.nc", says="--workers")


@pytest.mark.parametrize("keep", ["sketch:3", "layers"])
def test_recordings_without_scores(run, refuse, labels, keep):
    how = ("--layers", "fc3") if keep == "layers" else ("--layers", "logits", "--keep",
                                                        f"logits={keep}")  # fmt: skip
    run("record", *NET, *SHOWN, *CANVAS, *how, "--out", "r.h5")
    says = "--layers logits" if keep == "layers" else ("sketch:3", "--keep logits=full")
    refuse("accuracy", "r.h5", *labels, "--out", "x.nc", says=says)


def test_the_answer_is_the_network_s_output_and_not_what_a_layer_is_called(run, labels, here):
    """Its largest score is the smallest of the layer that is called logits."""
    common = ("odd_heads:Turned", *SHOWN, *CANVAS)
    run("accuracy", *common, *labels, "--out", "a.nc")
    namespace = {}
    exec(FACTORIES, namespace)  # as the command builds it
    choice, margin = answers(namespace["Turned"]())
    np.testing.assert_array_equal(load_result("a.nc")["choice"], choice)
    np.testing.assert_allclose(load_result("a.nc")["margin"], margin, atol=1e-6)
    run("record", *common, "--layers", "logits", "--out", "r.h5")
    told = run("accuracy", "r.h5", *labels, "--out", "b.nc")
    assert "the network goes on after layer 'logits'" in told.err
    turned = nn.Sequential(namespace["Turned"]())
    turned.register_forward_hook(lambda part, given, output: -output)
    np.testing.assert_array_equal(load_result("b.nc")["choice"], answers(turned)[0])


def test_networks_without_class_scores(refuse, labels):
    ask = ("accuracy", *SHOWN, *CANVAS, *labels, "--out", "x.nc")
    refuse(*ask, "odd_heads:maps", says="4x7x7 values per image", late=True)
    refuse(*ask, "odd_heads:Pair", says=("2 tensors", "(output)[0]"), late=True)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("short.txt", "01a\n02a\n03a\n", "4 values per image for 3 classes"),
        ("twice.txt", "01a\n02a\n03a\n01a\n", ("several classes '01a'", "0, 3")),
        ("others.txt", "a\nb\nc\nd\n", ("'01a' is a category of novel",)),
        ("gap.txt", "01a\n\n03a\n02a\n", "no name for class 1"),
        ("empty.txt", "\n", "empty"),
        ("bad.json", "[1, 2]", "hold '1' for a name"),
        ("bad.json", "{", "no JSON"),
        ("bad.json", '{"0": "01a", "2": "02a"}', "each number from 0 to 1"),
        ("bad.txt", None, "cannot read the labels"),
    ],
)
def test_labels_that_do_not_fit(refuse, labels, here, name, text, says):
    if text is not None:
        (here / name).write_text(text)
    refuse(
        "accuracy", *NET, *SHOWN, *CANVAS, "--labels", name, "--out", "x.nc", says=says, late=True
    )


def test_labels_as_json(run, here):
    for number, found in enumerate(
        (list(NAMES), {str(place): [name, "more"] for place, name in enumerate(NAMES)})
    ):
        (here / "labels.json").write_text(json.dumps(found))
        run("accuracy", *NET, *SHOWN, "--object-size", 8, "--grid", "1x1", "--labels",
            "labels.json", "--out", f"{number}.nc")  # fmt: skip
        assert load_result(f"{number}.nc")["class"].values.tolist() == list(NAMES)

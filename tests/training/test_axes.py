"""Training that draws sizes, angles or contrasts, beside places, of everything it shows."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from elsewhere.analyzer import network_accuracy
from elsewhere.analyzer.trajectories import TrackSettings, track
from elsewhere.errors import CurriculumError, ExistsError, InputError
from elsewhere.models import find_device
from elsewhere.stimuli import Canvas
from elsewhere.stimuli.transformations import parse_axis, transformations, vary
from elsewhere.training import (
    Augment,
    Curriculum,
    Exemplars,
    Network,
    list_checkpoints,
    load_checkpoint,
    load_curriculum,
    read_card,
    train,
)
from elsewhere.training.checkpoints import read_weights

SEEN: list[tuple[np.ndarray, int]] = []


class Watched(nn.Module):
    """Keeps every image that it is trained on."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 5, stride=3)
        self.head = nn.LazyLinear(4)

    def forward(self, images):
        if self.training and torch.is_grad_enabled():
            SEEN.extend((image.copy(), 0) for image in images.detach().numpy())
        return self.head(self.body(images).relu().flatten(1))


def watched():
    network = Watched()
    network(torch.zeros(1, 3, 18, 18))
    return network


def at_one_place(objects, values, location, canvas):
    """Return what is to be seen of each object, as uint8 (object, size, size, 3), in NumPy."""
    images = []
    for pixels, mask in zip(objects.images, objects.masks, strict=True):
        patch = np.concatenate([pixels, mask[..., None]], axis=-1)
        for name, value in values.items():
            patch = transformations.get(name).apply(patch, value)
        side = len(patch)
        alone = dataclasses.replace(
            objects.subset([0]),
            images=patch[None, ..., :3].copy(),
            masks=patch[None, ..., 3].copy(),
        )
        image = np.full((canvas.size, canvas.size, 3), canvas.background, np.uint8)
        y, x = location[0] - side // 2, location[1] - side // 2
        image[y : y + side, x : x + side] = alone.patches((canvas.background,) * 3)[0]
        images.append(image)
    return np.stack(images)


def as_input(pixels, gain):
    return np.moveaxis(pixels, -1, 1).astype(np.float32) / np.float32(255) * np.float32(gain)


@pytest.mark.parametrize(
    ("axes", "values", "box"),
    [
        (("scale=0.6,1,1.6",), [{"scale": v} for v in (0.6, 1, 1.6)], 9),
        (
            ("rotation=0,90", "scale=0.6,1"),
            [{"rotation": angle, "scale": scale} for angle in (0, 90) for scale in (0.6, 1)],
            5,
        ),
    ],
)
@pytest.mark.parametrize("background", [0, 40])
def test_batches_are_pictures_pasted_one_by_one(
    make_phase, tmp_path, axes, values, box, background
):
    canvas = Canvas(18, 5, background)
    phase = make_phase(
        categories=4, exemplars=Exemplars(2, 1), steps=40, batch=8, checkpoints=0, axes=axes
    )
    network = Network(f"{__name__}:watched", gain=2.0)
    SEEN.clear()
    train(Curriculum("t", network, canvas, (phase,)), tmp_path / "run", device="cpu")
    card = list_checkpoints(tmp_path / "run")[-1]
    objects, _ = card.load_objects()
    window = dataclasses.replace(canvas, object_size=box)
    known = {}
    for place in ((y, x) for y in window.valid for x in window.valid):
        for number, each in enumerate(values):
            for image in as_input(at_one_place(objects, each, place, canvas), 2.0):
                known[image.tobytes()] = (number, place)
    shown = [known.get(np.ascontiguousarray(image).tobytes()) for image, _ in SEEN]
    drawn = [each for each in shown[-320:] if each is not None]
    assert len(drawn) == 320  # what came before were trials of the network, on noise
    counts = np.bincount([number for number, _ in drawn], minlength=len(values))
    assert (abs(counts - 320 / len(values)) < 5 * np.sqrt(320 / len(values))).all()
    ends = {place[0] for _, place in drawn}
    assert {min(ends), max(ends)} == {window.valid[0], window.valid[-1]}
    assert (card.axes, card.environment) == (axes, "full")


def weights_of(run):
    return read_weights(list_checkpoints(run)[-1])


def test_one_location_shows_objects_as_they_are(make_phase, make_curriculum, tmp_path):
    first = make_phase("all", steps=2, axes=("scale=0.5,1,1.5",))
    for axes in ((), ("scale=0.5,1.5",)):
        second = make_phase("one", environment="centre", after="none", steps=3, axes=axes)
        train(make_curriculum(first, second), tmp_path / str(len(axes)), device="cpu")
    plain, beside = (weights_of(tmp_path / name) for name in "01")
    assert all(torch.equal(plain[name], beside[name]) for name in plain)
    assert list_checkpoints(tmp_path / "1")[-1].axes == ()


class Stop(Exception):
    pass


def stop(report):
    if report.step >= 50:
        raise Stop


@pytest.mark.parametrize("options", [{}, {"augment": Augment(shading=0.4), "ema": 0.9}])
def test_a_run_knows_its_axes_and_goes_on_to_the_same_weights(
    make_phase, make_curriculum, tmp_path, options
):
    phase = make_phase(steps=70, checkpoints=(0, 50), **options)
    curriculum = make_curriculum(phase)
    ask = {"device": "cpu", "axes": ["scale=0.5:1.5:3"]}
    train(curriculum, tmp_path / "whole", **ask)
    with pytest.raises(Stop):
        train(curriculum, tmp_path / "run", progress=stop, save_every=0, **ask)
    for other in ([], ["scale=0.5:1.5:5"], ["contrast=0.5,1"]):
        with pytest.raises(ExistsError, match="holds another run"):
            train(curriculum, tmp_path / "run", device="cpu", axes=other)
    train(curriculum, tmp_path / "run", **ask)
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "run")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    card = list_checkpoints(tmp_path / "run")[-1]
    assert read_card(card.path).axes == ("scale=0.5:1.5:3",)


def test_another_function_of_the_same_axis_is_another_run(
    make_phase, make_curriculum, tmp_path, monkeypatch
):
    curriculum = make_curriculum(make_phase(steps=70, axes=("scale=0.5,1",)))
    with pytest.raises(Stop):
        train(curriculum, tmp_path, device="cpu", progress=stop, save_every=0)
    plain = transformations.get("scale")
    other = dataclasses.replace(plain, apply=lambda patch, value: plain.apply(patch, value / 2))
    monkeypatch.setattr(transformations, "get", lambda name: other)
    with pytest.raises(ExistsError, match="begun with other pictures"):
        train(curriculum, tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("axes", "environment", "says"),
    [
        ("size=0.5", "full", "unknown axis 'size'"),
        ("scale=small", "full", "cannot read 'scale=small'"),
        ("x=1,2", "full", "come from --grid"),
        ("scale=0", "full", "expected a number above 0"),
        ("scale=0.5,4", "full", "objects need 29 px, and the canvas has 16 px"),
        ("scale=0.01", "full", "nothing is left of object"),
    ],
)
def test_axes_that_cannot_be_drawn_from_are_named_with_their_line(
    tmp_path, axes, environment, says
):
    file = tmp_path / "c.toml"
    file.write_text(
        '[network]\nname = "small-cnn"\n[canvas]\nsize = 16\nobject_size = 7\nbackground = 20\n'
        f'[[phase]]\nname = "learn"\nobjects = "glyphs"\ncategories = 3\nsteps = 2\n'
        f'environment = "{environment}"\naxes = "{axes}"\n'
    )
    with pytest.raises(CurriculumError, match="line 13") as told:
        train(load_curriculum(file), tmp_path / "run", device=str(find_device("cpu")))
    assert says in str(told.value)
    assert not (tmp_path / "run").exists()


def test_an_axis_that_nothing_draws_from_is_refused(make_phase, make_curriculum, tmp_path):
    curriculum = make_curriculum(make_phase(environment="one"))
    with pytest.raises(InputError, match="nothing draws from the axis scale=0.5"):
        train(curriculum, tmp_path / "run", device="cpu", axes=["scale=0.5"])
    assert not (tmp_path / "run").exists()


def test_a_picture_that_was_drawn_counts_as_seen(make_phase, make_curriculum, tmp_path):
    for name, axes in (("turned", ("rotation=0,90",)), ("upright", ())):
        train(make_curriculum(make_phase(steps=1, axes=axes)), tmp_path / name, device="cpu")
    for name, known in (("turned", True), ("upright", False)):
        card = list_checkpoints(tmp_path / name)[-1]
        shown, _ = card.load_objects()
        (turned,) = vary(shown, ("rotation",), [(90,)])
        assert card.has_seen(shown).all()
        assert card.has_seen(turned).mean() == pytest.approx(float(known), abs=0.2)


def test_a_folder_s_curricula_share_axes(tmp_path):
    (tmp_path / "scale.toml").write_text(
        'like = "quick"\n[every_phase]\naxes = ["scale=0.5:1:3"]\n'
    )
    for name in ("full", "vanilla"):
        phases = load_curriculum(tmp_path / name).phases
        assert [phase.axes for phase in phases] == [("scale=0.5:1:3",)] * len(phases)


@pytest.fixture(scope="module")
def runs(make_phase, make_curriculum, tmp_path_factory):
    """The same network, trained everywhere at one size, and at many."""
    folder = tmp_path_factory.mktemp("sizes")
    phase = make_phase(
        categories=4, exemplars=Exemplars(12, 8), steps=400, batch=16, checkpoints=0,
        learning_rate=4e-3, schedule="one-cycle", dropout=0.0,
    )  # fmt: skip
    network = Network("small-cnn", arguments={"channels": "8-16", "hidden": 24}, gain=4.0)
    curriculum = make_curriculum(phase, network=network, canvas=Canvas(16, 9))
    for name, axes in (("one", []), ("many", ["scale=0.4,0.5,0.7,1"])):
        train(curriculum, folder / name, device="cpu", axes=axes)
    return folder


def test_who_was_trained_at_all_sizes_knows_objects_at_half_their_size(runs):
    found = {}
    for name in ("one", "many"):
        card = list_checkpoints(runs / name)[-1]
        objects, held_out = card.test_objects(per_category=12)
        found[name] = network_accuracy(
            load_checkpoint(card), objects, card.canvas, "3x3", axes=[parse_axis("scale=0.5,1")],
            held_out=held_out, classes=card.categories,
        )["accuracy"].mean(["y", "x"]).sel(exemplars="same")  # fmt: skip
    assert found["one"].sel(scale=1) > 0.9
    assert found["many"].sel(scale=1) > 0.85
    assert found["many"].sel(scale=0.5) > found["one"].sel(scale=0.5) + 0.25


def test_a_track_along_axes_is_the_accuracy_of_each_checkpoint(runs):
    settings = TrackSettings("2x2", ("fc4",), per_category=3, axes=("scale=0.5,1",), engine="dense")
    found = track(runs / "many", settings=settings)
    assert found["accuracy"].dims == ("checkpoint", "exemplars", "scale", "y", "x")
    assert found["cosine"].dims == ("checkpoint", "layer", "scale", "y", "x")
    assert found.attrs["reference_scale"] == 1.0
    card = list_checkpoints(runs / "many")[-1]
    objects, _ = card.load_objects()
    objects = objects.select(None, 3)
    network = load_checkpoint(card).module.eval()
    for scale in (0.5, 1):
        for y in found["y"].values:
            images = as_input(at_one_place(objects, {"scale": scale}, (y, 4), card.canvas), 4.0)
            with torch.no_grad():
                right = network(torch.from_numpy(images)).argmax(1).numpy()
            mine = (
                found["accuracy"].isel(checkpoint=-1).sel(exemplars="same", scale=scale, y=y, x=4)
            )
            assert float(mine) == (right == objects.category_index).mean()

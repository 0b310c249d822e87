"""What the sources of the architectures claim of them, on small networks; some are trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import elsewhere
from elsewhere.analyzer.accuracy import network_accuracy
from elsewhere.analyzer.equivariance import aligned_similarity
from elsewhere.errors import LayerError
from elsewhere.figures import draw
from elsewhere.measures import consistency
from elsewhere.measures.window import PLACE, window_error
from elsewhere.models import list_layers, load_model
from elsewhere.models.spatial_transformer import WindowPlace
from elsewhere.recording import Sweep
from elsewhere.stimuli import Canvas, load_objects
from elsewhere.training import (
    Curriculum,
    Exemplars,
    Network,
    Phase,
    list_checkpoints,
    load_checkpoint,
    train,
)

CANVAS = Canvas(32, 9)
SMALL = {"channels": "8-16-32", "hidden": 64, "canvas": 32}
NEAR = "at:" + ";".join(f"{y},{x}" for y in range(14, 18) for x in range(12, 16))


def glyphs(count: int = 8):
    return load_objects("glyphs", size=9, categories=count)


def sweep(name: str, layers: list[str], grid: str, *, seed: int = 0, **arguments: object) -> Sweep:
    model = load_model(name, model_args={**SMALL, **arguments}, seed=seed)
    return Sweep(model, glyphs(), canvas=CANVAS, grid=grid, layers=layers)


def learn(folder, name: str, environment: str, steps: int):
    """Train a small network on glyphs; return its card and its model."""
    phase = Phase(
        "learn", "glyphs", categories=6, exemplars=Exemplars(4, 1), environment=environment,
        steps=steps, learning_rate=3e-3, schedule="one-cycle", checkpoints=(steps,),
    )  # fmt: skip
    network = Network(name, arguments=SMALL | {"dropout": 0.0}, gain=4.0)
    train(Curriculum("own", network, CANVAS, (phase,)), folder, device="cpu")
    card = list_checkpoints(folder)[-1]
    return card, load_checkpoint(card.path)


@pytest.fixture(scope="module")
def vanilla(tmp_path_factory):
    """Networks that were trained at one location, with a flattening head and with none."""
    folder = tmp_path_factory.mktemp("vanilla")
    names = ("small-cnn", "small-cnn-gap")
    return {name: learn(folder / name, name, "one:16,4", 150) for name in names}


def test_global_pooling_knows_elsewhere_what_flattening_knows_in_one_place(vanilla) -> None:
    """Blything et al. (2020), the contrast of Biscione & Bowers: vanilla, off the location."""
    index = {}
    for name, (card, model) in vanilla.items():
        objects, _ = card.test_objects(per_category=4)
        result = network_accuracy(
            model, objects, CANVAS, "3x5", trained=[(16, 4)], classes=card.categories
        )
        index[name] = float(result["II_far"].sel(exemplars="same"))
    assert index["small-cnn"] < 0.25
    assert index["small-cnn-gap"] > 0.3


def test_a_blur_raises_consistency_on_the_same_weights(vanilla) -> None:
    """Zhang (2019), of a trained network."""
    card, model = vanilla["small-cnn-gap"]
    objects, _ = card.test_objects(per_category=4)
    shares = {}
    for name in ("small-cnn-gap", "small-cnn-gap-blurpool"):
        arguments = SMALL | {"num_classes": 6, "dropout": 0.0}
        other = load_model(name, model_args=arguments, transform=model.transform)
        other.module.load_state_dict(model.module.state_dict())
        moved = Sweep(other, objects, canvas=CANVAS, grid=NEAR, layers=["logits"])
        result = elsewhere.measure(moved, names="consistency")
        shares[name] = float(result["consistency_away"][0])
    assert shares["small-cnn-gap"] < shares["small-cnn-gap-blurpool"]


def test_a_blur_makes_maps_more_alike_between_phases_layer_by_layer() -> None:
    """Azulay & Weiss (2019), Zhang (2019): a move by less than a stride, the same weights."""
    layers = ["pool1", "pool2", "pool3"]
    found = [
        aligned_similarity(sweep(name, layers, "at:15,14;15,15;15,16"), layers=layers,
                           shift="nearest")["aligned"].values[:, 0, 1]
        for name in ("small-cnn", "small-cnn-blurpool")
    ]  # fmt: skip
    assert (found[1] > found[0] + 0.01).all()


def test_a_choice_of_phases_is_consistent_under_a_roll_and_not_when_objects_are_pasted() -> None:
    """Chaman & Dokmanic (2021): with circular padding exactly 1."""
    values = CANVAS.paste(glyphs().patches((0, 0, 0)), [(15, 14)] * 8, (0, 0, 0))
    images = torch.from_numpy(values).permute(0, 3, 1, 2) / 255
    moves = [(y, x) for y in (0, 3, 9) for x in (0, -5, 8)]
    shares = {}
    for name in ("small-cnn-aps-circular-gap", "small-cnn-circular-gap"):
        module = load_model(name, model_args=SMALL, seed=1).module
        with torch.no_grad():
            outputs = torch.stack([module(images.roll(move, (2, 3))) for move in moves], 1).numpy()
        shares[name] = consistency(outputs.argmax(2)).value
    assert shares["small-cnn-aps-circular-gap"] == 1
    assert shares["small-cnn-circular-gap"] < 1
    pasted = elsewhere.measure(sweep("small-cnn-aps-gap", ["logits"], "5x5", seed=1),
                               names="consistency")  # fmt: skip
    assert float(pasted["consistency_away"][0]) < 1


def test_position_is_read_from_zero_padding_and_not_from_circular() -> None:
    """Kayhan & van Gemert (2020): of channel means, in which a map's own place is gone."""
    found = {}
    for name in ("small-cnn-gap", "small-cnn-circular-gap", "small-cnn-stride1-circular-gap"):
        result = elsewhere.measure(sweep(name, ["avgpool"], "5x5"), names="position")
        found[name] = float(result["position_r2"][0])
    zero, circular, exact = found.values()
    assert zero > 0.7
    assert circular < zero - 0.2  # what is left are phases of sub-sampling
    assert not exact > 0.05  # rounding, or nothing that varies


# --- where a spatial transformer looks


def test_the_window_of_any_network_is_a_layer_that_can_be_measured() -> None:
    assert WindowPlace.__name__ == PLACE
    layers = {layer.name: layer for layer in list_layers(load_model("small-cnn-stn"))}
    assert layers["window.place"].kind == PLACE
    assert layers["window.place"].shape == (3,)


def _looking(seed: int = 0) -> Sweep:
    """A sweep of a network whose window depends on what it is shown."""
    model = load_model("small-cnn-stn", model_args=SMALL, seed=seed)
    last = model.module.get_submodule("window.locate.8")
    with torch.no_grad():
        last.weight.normal_(std=0.5, generator=torch.Generator().manual_seed(seed))
    layers = ["window.place", "logits"]
    return Sweep(model, glyphs(), canvas=CANVAS, grid="3x3", layers=layers)


def test_windows_are_measured_in_px_beside_the_true_box() -> None:
    shown = _looking()
    result = elsewhere.measure(shown, names="window", layers=["window.place"])
    images = shown.objects.patches((0, 0, 0))
    place = (int(result["y"][1]), int(result["x"][2]))
    canvas = torch.from_numpy(CANVAS.paste(images[:1], [place], (0, 0, 0)))
    values = canvas.permute(0, 3, 1, 2) / 255
    window = shown.model.module.get_submodule("window")
    with torch.no_grad():
        size, x, y = window.locate(values)[0].tolist()
    at = result.isel(layer=0, object=0, y=1, x=2)
    assert float(at["window_y"]) == pytest.approx((y + 1) * 16, abs=1e-3)
    assert float(at["window_x"]) == pytest.approx((x + 1) * 16, abs=1e-3)
    assert float(at["window_side"]) == pytest.approx(abs(size) * 32, abs=1e-3)
    box = np.array(place) - 4 + 4.5  # its middle, from the canvas's corner
    error = np.hypot(*(box - [float(at["window_y"]), float(at["window_x"])]))
    assert float(at["window_error_each"]) == pytest.approx(error, abs=1e-3)
    mean = float(result["window_error_each"].mean())
    assert float(result["window_error"][0]) == pytest.approx(mean)
    low, high = result["window_error_interval"].values[0]
    assert low < mean < high
    assert result["patch"].shape == (8, 9, 9, 3)


def test_the_error_of_a_window_on_the_object_is_zero() -> None:
    locations = [[4, 4], [15, 20]]
    middles = np.array(locations) + 0.5
    places = np.stack([[0.3, x / 16 - 1, y / 16 - 1] for y, x in middles])[None]
    found = window_error(places, locations, canvas=32, object_size=9)
    np.testing.assert_allclose(found, 0, atol=1e-12)


def test_of_other_layers_the_window_is_refused_or_missing() -> None:
    shown = _looking()
    result = elsewhere.measure(shown, names="window,position")
    assert np.isfinite(result["window_error"].values).tolist() == [True, False]
    assert any("logits: NaN, for it is no WindowPlace" in note for note in result.attrs["notes"])
    with pytest.raises(LayerError, match=r"window.place of a network with -stn.*logits"):
        elsewhere.measure(shown, names="window", layers=["logits"])


def test_an_untrained_window_does_not_respond_and_says_so() -> None:
    result = elsewhere.measure(sweep("small-cnn-stn", ["window.place"], "2x2"), names="window")
    assert np.isnan(result["window_error"].values).all()
    assert result.attrs["notes"]


def test_windows_are_drawn_over_the_canvas() -> None:
    result = elsewhere.measure(_looking(), names="window", layers=["window.place"])
    figure = draw(result, "windows")
    assert len(figure.axes) == 4 * 6
    ax = figure.axes[0]
    window, box = ax.patches
    first = result.isel(layer=0, object=0, y=0, x=0)
    side = float(first["window_side"])
    assert window.get_width() == pytest.approx(side)
    assert window.get_x() + side / 2 == pytest.approx(float(first["window_x"]))
    assert window.get_y() + side / 2 == pytest.approx(float(first["window_y"]))
    assert (box.get_x(), box.get_y()) == (int(result["x"][0]) - 4, int(result["y"][0]) - 4)
    assert ax.texts[0].get_text() == f"{float(first['window_error_each']):.1f}"
    assert ax.get_xlim() == (0, 32)


@pytest.mark.long
def test_trained_everywhere_the_window_of_a_spatial_transformer_follows_the_object(tmp_path):
    """Jaderberg et al. (2015). A classifier that is strong enough by itself leaves the window."""
    phase = Phase(
        "learn", "glyphs", categories=6, exemplars=Exemplars(4, 1), environment="full",
        steps=1200, learning_rate=3e-3, schedule="one-cycle", checkpoints=(1200,),
        rates={"window.*": 0.5}, clip=1.0,
    )  # fmt: skip
    small = {"channels": "4-8", "hidden": 16, "dropout": 0.0}
    network = Network("small-cnn-stn", arguments=small, gain=4.0)
    train(Curriculum("own", network, CANVAS, (phase,)), tmp_path / "run", device="cpu")
    model = load_checkpoint(list_checkpoints(tmp_path / "run")[-1].path)
    shown = Sweep(model, glyphs(4), canvas=CANVAS, grid="4x4", layers=["window.place"])
    result = elsewhere.measure(shown, names="window")
    still = float(result["window_error_still"][0])  # 11.3 px; the error was 6.4 (5.5 to 7.3)
    assert float(result["window_error_interval"][0, 1]) < 0.8 * still

"""Steps between layers go along the main branch: shortcuts and gates have none."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from torch import nn

import elsewhere
from elsewhere.analyzer import measure, similarity
from elsewhere.analyzer.trajectories import TrackSettings, track
from elsewhere.figures import plot_steps
from elsewhere.figures.layer_axis import along_layers
from elsewhere.forms import beside_main, shortcuts
from elsewhere.models import load_model
from elsewhere.probes import probe
from elsewhere.recording import Sweep, record
from elsewhere.stimuli import Canvas
from elsewhere.storage import load_result, save_result
from elsewhere.training import Curriculum, Exemplars, Network, Phase, train

BESIDE = {"down", "squeeze", "excite"}


class Gated(nn.Module):
    """Two convolutions, the second gated by the channels' means, and a shortcut before both."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.down = nn.Conv2d(6, 6, 1)
        self.first, self.second = (nn.Conv2d(6, 6, 3, padding=1) for _ in range(2))
        self.squeeze, self.excite = nn.Linear(6, 3), nn.Linear(3, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, images):
        maps = self.stem(images).relu()
        beside = self.down(maps)
        maps = self.second(self.first(maps).relu())
        gate = self.excite(self.squeeze(maps.mean((2, 3))).relu()).sigmoid()
        return self.head((maps * gate[:, :, None, None] + beside).amax((2, 3)))


@pytest.fixture(scope="module")
def sweep(wrap, disturb, make_objects):
    model = wrap(disturb(Gated()), 24)
    canvas = Canvas(size=24, object_size=8)
    grid = "at:12,4;12,12;12,20"
    return Sweep(model, make_objects(6, per=2), canvas=canvas, grid=grid, layers=["*"])


def steps_by_hand(values, names, beside):
    """Return the difference to the last layer that was not beside the main branch."""
    found, last = [], None
    for value, name in zip(values, names, strict=True):
        found.append(np.nan if last is None or name in beside else value - last)
        last = last if name in beside else value
    return np.array(found)


def check(result, value, step, beside):
    names = [str(name) for name in result["layer"].values]
    expected = steps_by_hand(result[value].values, names, beside)
    np.testing.assert_allclose(result[step].values, expected, rtol=0, atol=1e-12)
    assert np.isfinite(expected).sum() == len(set(names) - beside) - 1
    for kind in ("interval", "band"):
        low, high = result[f"{step}_{kind}"].values.T
        np.testing.assert_array_equal(np.isnan(low), np.isnan(expected))
        assert (low <= high)[np.isfinite(expected)].all()
    (note,) = [note for note in result.attrs["notes"] if note.startswith("steps go from one")]
    assert note.endswith(": " + ", ".join(name for name in names if name in beside))


def test_steps_pass_by_an_early_shortcut_and_a_gate(sweep):
    result = similarity(sweep)
    check(result, "cosine_G_away", "cosine_G_step", BESIDE)
    without = result["cosine_G_away_without"].sel(layer=["first", "second"]).values
    apart = without[1] - without[0]  # leaving out each of 6 categories: Student's t, 5 freedoms
    error = np.sqrt(5 / 6 * ((apart - apart.mean()) ** 2).sum())
    bounds = result["cosine_G_step_interval"].sel(layer="second").values
    np.testing.assert_allclose(np.ptp(bounds) / 2, 2.570582 * error, rtol=1e-5)


def test_steps_of_measures_and_probes_pass_by_them_as_well(sweep):
    result = measure(sweep, names="cka,identification")
    numbers = [str(key).removesuffix("_step") for key in result if str(key).endswith("_step")]
    assert {"cka", "identification_raw", "identification_lost"} <= set(numbers)
    for name in numbers:
        value = f"{name}_away" if f"{name}_away" in result else name
        check(result, value, f"{name}_step", BESIDE)
    probed = probe(sweep, train_at=(12, 4), controls=[], split="same")
    where = probed.isel(exemplars=0).sel(where="off")
    check(where, "accuracy_at", "accuracy_at_step", BESIDE)


def test_a_figure_draws_no_step_to_or_from_them(sweep):
    result = similarity(sweep)
    (ax,) = plot_steps(result).axes
    points = [line for line in ax.lines if line.get_label() in ("sure", "open")]
    at, drawn = (
        np.concatenate([getattr(line, f"get_{axis}data")() for line in points]) for axis in "xy"
    )
    names = result["layer"].values[at[np.isfinite(drawn)].astype(int)]
    assert set(names.tolist()) == {"first", "second", "logits"}


def test_recordings_say_it_and_older_ones_go_by_receptive_fields(sweep, tmp_path):
    record(sweep, tmp_path / "run.h5")
    with elsewhere.open(tmp_path / "run.h5") as recording:
        check(similarity(recording), "cosine_G_away", "cosine_G_step", BESIDE)
        # what files that do not say it tell: nothing of a shortcut that runs first, nor of gates
        unsaid = [replace(layer, beside=None) for layer in recording.layers]
        assert shortcuts(unsaid) == []


@pytest.mark.parametrize("said", [True, False])  # without the mark, receptive fields tell it
def test_steps_of_a_residual_network_of_the_zoo(make_objects, said):
    model = load_model("resnet18-slim", seed=1)
    beside = {"layer2.0.downsample.0", "layer2.0.downsample.1"}
    names = ["layer1.1.bn2", "layer2.0.conv1", "layer2.0.bn2", *sorted(beside), "layer2.0"]
    sweep = Sweep(
        model,
        make_objects(5, size=14),
        canvas=Canvas(size=64, object_size=14),
        grid="at:32,20;32,44",
        layers=[*names, "logits"],
    )
    if not said:
        sweep.layers = tuple(replace(layer, beside=None) for layer in sweep.layers)
    check(similarity(sweep, metric="evoked"), "evoked_G_away", "evoked_G_step", beside)


def test_tracks_say_which_layers_are_beside(tmp_path):
    canvas = Canvas(32, 9)
    phase = Phase(
        "all", "glyphs", categories=4, exemplars=Exemplars(1, 0), environment="full", steps=1,
        batch=4, checkpoints=(0,),
    )  # fmt: skip
    train(Curriculum("t", Network("resnet18-slim"), canvas, (phase,)), tmp_path, device="cpu")
    names = ("layer1.1.bn2", "layer2.0.bn2", "layer2.0.downsample.0", "layer2.0", "logits")
    tracked = track(tmp_path, settings=TrackSettings(grid="2x2", layers=names, per_category=0))
    assert tracked.sizes["checkpoint"] == 2
    assert beside_main(tracked) == [2]
    path = save_result(tracked, tmp_path / "track.nc")
    figure, ax = plt.subplots()
    order = along_layers(ax, load_result(path)).order.tolist()
    plt.close(figure)
    assert order == [0, 1, 3, 4, -1, 2]  # a line from layer to layer passes it by
    value, step = (tracked[f"cosine_G_{key}"].values for key in ("away", "step"))
    np.testing.assert_allclose(step[:, 3], value[:, 3] - value[:, 1], atol=1e-12)
    assert np.isnan(step[:, [0, 2]]).all()

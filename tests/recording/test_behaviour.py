"""A network is known by what it does, where its name, code and weights do not tell all of it."""

import contextlib
import dataclasses
import functools
import types

import h5py
import hdf5plugin  # noqa: F401  (registers the filter)
import numpy as np
import pytest
import torch
from torch import nn

import elsewhere
from elsewhere.analyzer.attribution import AttributionSettings, LinearTarget, attribute
from elsewhere.errors import ElsewhereError, ExistsError, InputError
from elsewhere.measures.behaviour import alike, differing, sketch
from elsewhere.models import InputTransform, Model, describe_code, state_sha256
from elsewhere.models.aliases import aliases
from elsewhere.probes import fit_probe, load_readout, save_readout
from elsewhere.recording import Sweep, record
from elsewhere.stimuli import Canvas, Grid, load_objects
from elsewhere.storage import open_recording

CANVAS = Canvas(24, 7, background=60)
GRID = Grid.parse("1x3", CANVAS)
CONSTANTS = types.SimpleNamespace(gain=1.0)


@dataclasses.dataclass
class Config:
    gain: float = 1.0


class Net(nn.Module):
    """A gain is applied that no state dict and no source tells."""

    def __init__(self, form, gain):
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Linear(5, 3)
        self._gain = self._config = None
        self._function = lambda x: x
        if form == "constant":
            CONSTANTS.gain = gain
        elif form == "private attribute":
            self._gain = gain
        elif form == "config object":
            self._config = Config(gain)
        elif form == "closure":
            self._function = lambda x: x * gain
        elif form == "partial":
            self._function = functools.partial(torch.mul, torch.tensor(gain))
        elif form == "unsaved buffer":
            self.register_buffer("_scale", torch.tensor(gain), persistent=False)

    def forward(self, x):
        factor = CONSTANTS.gain if self._gain is None else self._gain
        factor = factor if self._config is None else self._config.gain
        factor = factor * getattr(self, "_scale", 1.0)
        return self.fc(self.relu(self._function(self.conv(x) * factor)).mean((2, 3)))


FEW = pytest.mark.parametrize("build", ["constant", "closure"], indirect=True)
FORMS = ["constant", "private attribute", "config object", "closure", "partial", "unsaved buffer"]


@pytest.fixture(params=FORMS)
def build(request):
    """Return a function that builds the network's sweep with a gain that cannot be told."""

    def make(gain, **options):
        torch.manual_seed(0)
        network = Net(request.param, gain).eval()
        with torch.no_grad():
            network.conv.bias.add_(0.2)
        digest = state_sha256(network.state_dict())
        model = Model("net", network, InputTransform(), aliases(network), "none", digest)
        model = dataclasses.replace(model, canvas_size=24)
        objects = load_objects("digits", size=7, categories=["1", "4"], per_category=3)
        return Sweep(model, objects, canvas=CANVAS, grid=GRID, layers=("relu", "fc"), **options)

    yield make
    CONSTANTS.gain = 1.0


def test_identity_does_not_tell_but_behaviour_does(build):
    one, same, other = build(1.0), build(1.0), build(1.05)
    assert one.model.weights_sha256 == other.model.weights_sha256
    fields = [describe_code(sweep.model.module)["architecture"] for sweep in (one, other)]
    assert fields[0] == fields[1]
    assert differing(one.conduct.behaviour, same.conduct.behaviour) == []
    assert {"relu", "logits"} <= set(differing(one.conduct.behaviour, other.conduct.behaviour))


def test_a_finished_recording_of_another_network_is_not_handed_out(build, tmp_path):
    path = record(build(1.0), tmp_path / "a.h5")
    with h5py.File(path) as file:
        before = file["layers/relu/activation"][...]
        assert len(file["layers/relu"].attrs["behaviour"]) < 1500
    record(build(1.0), path)  # already complete
    with pytest.raises(ExistsError, match="relu|settings"):  # what is told counts as well
        record(build(6.0), path)
    record(build(6.0), path, overwrite=True)
    with h5py.File(path) as file:
        ratio = file["layers/relu/activation"][...].max() / before.max()
    assert ratio == pytest.approx(6.0, rel=1e-4)


def test_what_only_objects_meet_counts(tmp_path):
    """A way through the network that neither the fixed image nor the empty canvas takes."""

    def sweep(gain):
        def dim(x):
            spread = x.std((1, 2, 3), keepdim=True)
            return torch.where((spread > 0.01) & (spread < 0.18), x * gain, x)

        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU()).eval()
        network.register_forward_pre_hook(lambda part, inputs: (dim(inputs[0]),))
        digest = state_sha256(network.state_dict())
        model = Model("net", network, InputTransform(), {}, "none", digest, canvas_size=24)
        objects = load_objects("novel", size=7, categories=3)
        return Sweep(model, objects, canvas=CANVAS, grid=GRID, layers="*")

    path = record(sweep(1.0), tmp_path / "a.h5")
    record(sweep(1.0), path)  # already complete
    with pytest.raises(ExistsError, match="did something else"):
        record(sweep(6.0), path)


@FEW
def test_an_interrupted_recording_does_not_go_on_with_another_network(build, tmp_path, monkeypatch):
    path, written = tmp_path / "a.h5", []

    class Killed(Exception):
        pass

    def dying(parts, number, data):
        if written:
            raise Killed
        written.append(number)
        original(parts, number, data)

    from elsewhere.storage.parts import Parts

    original = Parts.write_portion
    with monkeypatch.context() as patch:
        patch.setattr(Parts, "write_portion", dying)
        patch.setattr("elsewhere.storage.portions.PORTION_ROWS", 8)
        with contextlib.suppress(Killed):
            record(build(1.0), path)
        with pytest.raises(ExistsError, match="relu|settings"):
            record(build(6.0), path)
    with pytest.raises(ExistsError):
        record(build(6.0), path)


@FEW
def test_readouts_and_joins_of_another_network_are_refused(build, tmp_path):
    one, other = build(1.0), build(6.0)
    one = build(1.0)  # whose constant is set last
    path = save_readout(fit_probe(one, "relu", train_at="left"), tmp_path / "readout.nc")
    target = LinearTarget.of(load_readout(path))
    attribute(one, AttributionSettings(method="saliency", target=target))  # its own network
    settings = AttributionSettings(method="saliency", target="logit:1")
    similarity = elsewhere.similarity(one)
    attribute(one, settings, others=[similarity])
    other = build(6.0)
    with pytest.raises(InputError, match="does something else with the same image"):
        attribute(other, settings, others=[similarity])
    with pytest.raises(ElsewhereError, match="did something else"):
        attribute(other, AttributionSettings(method="saliency", target=target))


@FEW
def test_attribution_does_not_go_on_with_another_network(build, tmp_path, monkeypatch):
    settings = AttributionSettings(method="saliency", target="logit:1")
    path = tmp_path / "a.nc"
    from elsewhere.analyzer.attribution.objects import ObjectRun

    whole = ObjectRun.measure

    def dying(run, number, **options):
        if number == 2:
            raise KeyboardInterrupt
        return whole(run, number, **options)

    monkeypatch.setattr(ObjectRun, "measure", dying)
    with pytest.raises(KeyboardInterrupt):
        attribute(build(1.0), settings, path=path)
    monkeypatch.undo()
    with pytest.raises(ExistsError, match="did something else in .*output"):
        attribute(build(6.0), settings, path=path)
    attribute(build(1.0), settings, path=path)


@FEW
def test_recordings_without_it_are_still_read_and_still_complete(build, tmp_path, monkeypatch):
    from elsewhere.models import Conduct

    with monkeypatch.context() as patch:
        patch.setattr(Sweep, "conduct", Conduct())
        path = record(build(1.0), tmp_path / "a.h5")
    with open_recording(path) as recording:
        assert recording.behaviour == {}
    record(build(1.0), path)


def test_sketches_forgive_rounding_and_nothing_else():
    rng = np.random.default_rng(0)
    for size in (1, 7, 300, 40_000):
        values = rng.normal(size=size) * (rng.uniform(size=size) < 0.5) + 0.01
        largest = abs(values).max()
        noise = rng.uniform(-1e-5, 1e-5, size=size) * largest
        assert alike(sketch(values), sketch(values + noise))
        assert not alike(sketch(values), sketch(values * 1.005))
        assert not alike(sketch(values), sketch(np.append(values, 0)))
        if size > 1:
            assert not alike(sketch(values), sketch(values[::-1]))
    assert alike(sketch(np.full(3, np.nan)), sketch(np.full(3, np.nan)))
    assert not alike(sketch(np.full(3, np.nan)), sketch(np.ones(3)))

"""On a GPU, the points of all maps fill passes together; the maps are those of one step a pass."""

import sys

import numpy as np
import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from elsewhere.analyzer.attribution import AttributionSettings, attribute
from elsewhere.analyzer.attribution.methods import methods

ROOM = "elsewhere.analyzer.attribution"
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select")


@pytest.fixture
def together(monkeypatch):
    """Return a function that makes tensors of the CPU take the way of a GPU."""

    def switch():
        for name in ("methods", "batches"):
            module = sys.modules[f"{ROOM}.{name}"]
            monkeypatch.setattr(module, "in_full_batches", lambda images: True)

    return switch


def settings(**options):
    given = {"n_steps": 7, "tolerance": 9.0} | options.pop("options", {})
    return AttributionSettings(options=given, dtype="float32", **options)


@pytest.mark.parametrize("rule", ["gausslegendre", "riemann_trapezoid", "riemann_left"])
@pytest.mark.parametrize("target", ["logit:predicted", "probability:2", "similarity:conv2_1"])
def test_maps_are_those_step_by_step(make_sweep, together, target, rule):
    sweep = make_sweep(n=2, grid="3x5")
    asked = settings(target=target, options={"method": rule})
    plain = attribute(sweep, asked)
    together()
    found = attribute(sweep, asked)
    for name in ("attribution", "reference_attribution"):
        scale = name.replace("attribution", "scale")
        ours, theirs = ((each[name] * each[scale]).fillna(0).values for each in (found, plain))
        assert np.abs(theirs).max() > 0
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()
    np.testing.assert_array_equal(found["vanishing"], plain["vanishing"])


class Waits(TorchDispatchMode):
    """Counts what would wait for a device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.count += function.overloadpacket.__name__ in WAITS
        return function(*arguments, **options or {})


def test_passes_are_full_and_wait_for_nothing(make_sweep, together, monkeypatch):
    together()
    rows, waits, run = [], Waits(), methods.get("integrated-gradients").run

    def counting(setting, batch):
        forward = setting.scorer.forward

        def scored(images, *references):
            rows.append(len(images))
            return forward(images, *references)

        monkeypatch.setattr(setting.scorer, "forward", scored)
        try:
            with waits:
                return run(setting, batch)
        finally:
            monkeypatch.setattr(setting.scorer, "forward", forward)

    changed = methods.get("integrated-gradients")
    monkeypatch.setitem(vars(changed), "run", counting)
    attribute(make_sweep(n=1, grid="3x5"), settings(target="logit:1"))
    # 15 images in batches of 8 and 7, of 7 points each
    assert rows == [8] * (7 + 7)
    assert waits.count == 0


def test_a_gpu_has_rows_that_fill_it(make_sweep, monkeypatch):
    sweep, asked = make_sweep(n=1, grid="3x5"), settings(target="logit:1")
    plain, explain = attribute(sweep, asked), sys.modules[f"{ROOM}.explain"]
    monkeypatch.setattr(explain, "most_rows", lambda device, memory: (64, memory))
    wide = attribute(sweep, asked)
    assert (wide.attrs["numerics"]["batch_rows"], plain.attrs["numerics"]["batch_rows"]) == (64, 8)
    np.testing.assert_allclose(wide["score"], plain["score"], rtol=1e-5)
    assert np.abs(wide["attribution"] - plain["attribution"]).max() <= 1e-5

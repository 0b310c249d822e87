"""On a device `auto` takes the engine that was faster on a part of the sweep."""

import contextlib

import numpy as np
import pytest

from elsewhere import record, similarity
from elsewhere.recording.engines import compiling, timing
from elsewhere.recording.engines.timing import Times, fit


@pytest.fixture
def anew(on_device, monkeypatch):
    """Take the CPU for a device, on which nothing was timed yet."""
    timing._measured.cache_clear()
    monkeypatch.setattr(timing, "SAMPLE_WORK", 10**6)
    monkeypatch.setattr(compiling, "DOUBTFUL", 1e9)  # calls weigh much in a small network
    yield monkeypatch
    timing._measured.cache_clear()


def pretend(monkeypatch, *, call, add, whole, calls=None):
    """Let timing find such seconds of a call, a multiply-add and a pass."""

    def measure(*_):
        if calls is not None:
            calls.append(1)
        return Times(call, add, whole)

    monkeypatch.setattr(timing, "_measure", measure)


@pytest.mark.parametrize(("whole", "taken"), [(1.0, "incremental"), (1e-9, "dense")])
def test_the_faster_one_is_taken(anew, make_sweep, whole, taken):
    pretend(anew, call=1e-6, add=1e-15, whole=whole)
    sweep = make_sweep(n=4, grid="6x6", engine="auto", layers="relu1_1,logits")
    assert sweep.choice.name == taken
    if taken == "dense":
        assert "windows would not pay" in sweep.choice.reason


def test_it_is_never_slower_by_much(anew, make_sweep):
    """Whatever the seconds, the choice is the one that they make the faster."""
    rng = np.random.default_rng(0)
    for _ in range(8):
        timing._measured.cache_clear()
        call, add, whole = 10.0 ** rng.uniform((-6, -13, -6), (-3, -9, -1))
        pretend(anew, call=call, add=add, whole=whole)
        sweep = make_sweep(n=2, grid="4x4", engine="auto", layers="logits")
        found = compiling.estimate(
            make_sweep(n=2, grid="4x4", engine="incremental", layers="logits").choice.compiled,
            sweep.layers, (4, 4), 32, rows=8,
        ).timed(Times(call, add, whole))  # fmt: skip
        assert (sweep.choice.name == "incremental") == (found.fast <= found.slow)


def test_a_network_is_timed_once(anew, make_sweep):
    calls = []
    pretend(anew, call=1e-6, add=1e-15, whole=1.0, calls=calls)
    for _ in range(2):
        assert make_sweep(n=4, grid="6x6", engine="auto", layers="logits").choice
    assert len(calls) == 1
    assert make_sweep(n=4, grid="6x5", engine="auto", layers="logits").choice
    assert len(calls) == 2


@pytest.mark.parametrize("engine", ["dense", "incremental"])
def test_who_names_an_engine_waits_for_no_clock(anew, make_sweep, engine):
    calls = []
    pretend(anew, call=1, add=1, whole=1, calls=calls)
    assert make_sweep(n=4, grid="6x6", engine=engine, layers="logits").choice.name == engine
    assert not calls


def test_nothing_is_timed_on_a_processor(monkeypatch, make_sweep):
    calls = []
    pretend(monkeypatch, call=1, add=1, whole=1, calls=calls)
    assert make_sweep(n=4, grid="6x6", engine="auto", layers="logits").choice
    assert not calls


def test_what_is_timed_is_run(anew, make_sweep):
    """Windows for tiles of two sizes, and one pass; each three times."""
    runs, run = [], timing._run

    def note(engine, tile, layers):
        runs.append(tile.n_rows)
        run(engine, tile, layers)

    anew.setattr(timing, "_run", note)
    sweep = make_sweep(n=4, grid="6x6", engine="auto", layers="relu1_1,logits")
    assert sweep.choice
    assert len(runs) == 6
    assert runs[:3] == [runs[0]] * 3
    assert runs[0] < runs[3] <= 4 * 36
    np.testing.assert_allclose(
        similarity(sweep)["cosine_each"],
        similarity(sweep.using("dense"))["cosine_each"],
        atol=1e-5,
    )


class Killed(BaseException):
    """Nobody catches it."""


@pytest.mark.parametrize("begun", ["dense", "incremental"])
def test_a_recording_is_gone_on_with_by_the_engine_that_began_it(
    anew, make_sweep, tmp_path, contents_of, begun
):
    """Whatever the clock says the second time."""
    fast, slow = (1.0, 1e-9) if begun == "incremental" else (1e-9, 1.0)
    options = {"n": 12, "grid": "4x4", "layers": "relu1_1,logits", "engine": "auto"}

    def kill(done, total):
        if done > 0:
            raise Killed

    pretend(anew, call=1e-6, add=1e-15, whole=fast)
    with contextlib.suppress(Killed):
        record(make_sweep(**options), tmp_path / "run.h5", progress=kill)
    timing._measured.cache_clear()
    pretend(anew, call=1e-6, add=1e-15, whole=slow)
    sweep = make_sweep(**options)
    found = record(sweep, tmp_path / "run.h5")
    assert sweep.choice.name == begun
    whole = record(make_sweep(**options | {"engine": begun}), tmp_path / "whole.h5")
    assert contents_of(found) == contents_of(whole)


def test_fits():
    assert fit((4, 100, 4 * 0.5 + 100 * 0.01), (6, 900, 6 * 0.5 + 900 * 0.01)) == pytest.approx(
        (0.5, 0.01)
    )
    assert fit((4, 100, 8.0), (4, 1000, 4.0)) == (1.0, 0.0)  # slower with less: noise
    assert fit((4, 100, 0.1), (8, 200, 0.4)) == (0.05, 0.0)  # the two are not told apart
    assert fit((10, 100, 0.01), (20, 10000, 10.0)) == (0.0, 0.001)

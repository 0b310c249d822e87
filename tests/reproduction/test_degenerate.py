"""No network that knows nothing of objects makes a claim hold, alone or in any role."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from elsewhere.measures.claims import HOLDS, SHOWN
from elsewhere.models import model_registry
from elsewhere.reproduction import make_rows, summarise
from elsewhere.reproduction.conditions import make_runs
from elsewhere.reproduction.run import conclude, make_tasks
from elsewhere.reproduction.workers import perform_all
from elsewhere.training import Network

SEED = 100
NETWORKS = ("constant", "place_only", "untrained", "dead")
ROLES = {
    "vanilla": {"C1", "C3", "C5"},
    "acquired": {"C3", "C4", "C5"},
    "fixed": {"C4"},
    "fixed-learning": {"C4"},
    "equal-accuracy": {"C4"},
    "interference": {"C6"},
    "translated": {"C6"},
}
"""Which claims need a run."""


@pytest.fixture(scope="module")
def measured(tiny, with_network, with_phases, tmp_path_factory):
    """Run every condition with each of the networks: scale, claims and values of each run."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        patch.setattr(model_registry, "_entries", {**model_registry._entries})
        for name in NETWORKS:
            model_registry.add(f"degenerate-{name}", f"degenerate:{name}", summary="knows nothing")

            def change(phase, untrained=name == "untrained"):
                rate = 1e-12 if untrained else phase.learning_rate
                return dataclasses.replace(phase, learning_rate=rate)

            scale = with_network(tiny, Network(f"degenerate-{name}", gain=6.0)).with_phases(change)
            scale = dataclasses.replace(scale, grid="2x2", old_grid="2x2")
            digits = next(phase for phase in scale.learning if phase.name == "digits")
            for condition in ("vanilla", "acquired", "fixed-learning", "fixed-cell-learning"):
                scale = with_phases(scale, condition, digits)
            scale = with_phases(scale, "equal-accuracy", digits)
            out = tmp_path_factory.mktemp(name)
            runs = tuple(run for run in make_runs(scale) if run.name in {*ROLES, "full"})
            tasks = make_tasks(scale, runs, (SEED,), out)
            perform_all(tasks, workers=1)
            path = conclude(scale, tasks, out, figures=False)
            values = json.loads((out / "seeds" / str(SEED) / "measurements.json").read_text())
            values = {
                run: {key: np.nan if each is None else each for key, each in numbers.items()}
                for run, numbers in values.items()
            }
            found[name] = scale, json.loads(path.read_text()), values
    return found


def ideal(scale):
    """Return values of a run each, as the paper would have them: every claim is shown."""
    runs = {run.name: {} for run in make_runs(scale)}
    far = {"vanilla": 0.0, "acquired": 0.9, "fixed-learning": 0.0, "equal-accuracy": 0.0}
    for run, value in far.items():
        for phase in scale.learning:
            for kind in ("same", "held-out"):
                runs[run] |= {f"II_far/{kind}/{phase.name}": value}
                runs[run] |= {f"N_on/{kind}/{phase.name}": 1.0}
    for run, hidden in (("vanilla", 0.0), ("acquired", 0.9)):
        for phase in scale.unseen:
            name = phase.name
            for shift in ("nearest", "linear"):
                runs[run][f"equivariance/{shift}/inner/{name}"] = 0.6
            runs[run] |= {f"G/hidden/{name}": hidden, f"G/pooling/{name}": 0.0}
            runs[run] |= {f"zero_share/{layer}/{name}": 0.0 for layer in ("hidden", "pooling")}
    for run, lost in (("interference", 0.6), ("translated", 0.0)):
        for kind in ("same", "held-out"):
            runs[run] |= {f"II_far/{kind}/fall": lost, f"old_index/{kind}/fall": lost}
            runs[run] |= {f"N_trained/{kind}/fall": 0.0}
    runs["equal-accuracy"] |= {"reduced": "fixed", "start_train_accuracy": 0.95}
    runs["fixed"] = {"train_accuracy": 0.99, "place_only_accuracy": 0.25}
    return runs


def shown(scale, runs):
    found = summarise(make_rows(scale, {SEED: runs}))
    return {claim for claim, said in found.items() if said in (SHOWN, HOLDS)}


@pytest.mark.parametrize("name", NETWORKS)
def test_no_claim_is_shown_by_a_network_that_knows_nothing(measured, name):
    _, table, _ = measured[name]
    said = {claim: each["verdict"] for claim, each in table["summary"].items()}
    assert not {*said.values()} & {SHOWN, HOLDS}, said


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("run", list(ROLES))
def test_none_helps_in_the_role_of_another_network(measured, name, run):
    scale, _, values = measured[name]
    runs = ideal(scale)
    assert shown(scale, runs) == {"C1", "C3", "C4", "C5", "C6"}
    runs[run] = values[run] | (
        {"place_only_accuracy": 0.25} if run == "fixed" else {}
    )  # all six classes of this small scale share one place
    left = {"C1", "C3", "C4", "C5", "C6"} - ROLES[run]
    assert shown(scale, runs) == left


def test_they_are_what_they_are_called(measured):
    for name in NETWORKS:
        _, _, values = measured[name]
        assert values["vanilla"]["N_on/same/digits"] < 0.9
        # not for want of a number: their layers have similarities
    assert np.isfinite(measured["untrained"][2]["vanilla"]["G/hidden/glyphs"])
    assert measured["dead"][2]["vanilla"]["zero_share/pooling/glyphs"] == 1.0
    assert measured["constant"][2]["vanilla"]["N_on/same/digits"] == pytest.approx(0.0)
    assert measured["dead"][2]["vanilla"]["N_on/same/digits"] == pytest.approx(0.0)

"""Claims from made-up measurements."""

import json

import numpy as np
import pytest

from elsewhere.figures import plot_claims
from elsewhere.reproduction import make_rows, scales, summarise, to_dataset
from elsewhere.reproduction.claims import STATEMENTS, report_beside, to_table
from elsewhere.storage import load_result, save_result

SCALE = scales.get("laptop")


def make_results(n_seeds=4, **changes):
    """Return results as the paper would have them; `changes` are values by ``RUN__NAME``."""
    rng = np.random.default_rng(0)

    def about(value):
        return float(value + rng.normal(0, 0.004))

    results = {}
    for seed in range(n_seeds):
        runs = {}
        far = {"vanilla": 0.01, "acquired": 0.85, "fixed-learning": 0.03, "equal-accuracy": 0.02}
        for run, value in far.items():
            runs[run] = {
                f"II_far/{kind}/{phase.name}": about(value)
                for kind in ("same", "held-out")
                for phase in SCALE.learning
            }
        runs["equal-accuracy"]["reduced"] = "fixed"
        for run, hidden in (("vanilla", 0.1), ("acquired", 0.8)):
            for phase in SCALE.unseen:
                runs[run] |= {
                    f"equivariance/{phase.name}": about(0.6),
                    f"G/hidden/{phase.name}": about(hidden),
                    f"G/pooling/{phase.name}": about(0.1),
                }
        for run, fall in (("interference", 0.4), ("translated", 0.01), ("near", 0.05)):
            runs[run] = {"criterion_step": 100.0}
            for kind in ("same", "held-out"):
                runs[run] |= {
                    f"II_far/{kind}/fall": about(fall),
                    f"accuracy_trained/{kind}/fall": about(-0.01),
                    f"old_index/{kind}/fall": about(fall),
                }
        runs["full"] = {"train_accuracy": 0.97, "largest_correlation/digits": 0.9}
        runs["fixed"] = {"train_accuracy": 0.99, "place_only_accuracy": 1.0}
        for name, value in changes.items():
            run, _, key = name.partition("__")
            runs[run][key] = value(seed) if callable(value) else value
        results[seed] = runs
    return results


def verdicts(results):
    return summarise(make_rows(SCALE, results))


def test_the_paper_as_it_is():
    found = verdicts(make_results())
    assert found.pop("C2") == "not run"
    assert set(found.values()) == {"holds"}


def test_one_seed_shows_only():
    found = verdicts(make_results(n_seeds=1))
    assert found["C2"] == "not run"
    assert {found[name] for name in STATEMENTS if name != "C2"} == {"shown in this run"}


def test_one_test_set_is_enough_to_fail_c1():
    assert verdicts(make_results(**{"vanilla__II_far/same/novel": 0.4}))["C1"] == "fails"


def test_held_out_exemplars_do_not_decide():
    assert verdicts(make_results(**{"vanilla__II_far/held-out/novel": 0.4}))["C1"] == "holds"


def test_one_pair_across_domains_is_enough_for_c3():
    low = {"acquired__II_far/same/novel": 0.2}
    assert verdicts(make_results(**low))["C3"] == "holds"
    low["acquired__II_far/same/digits"] = 0.2
    # the pair within the domain still has .85: it does not count
    assert verdicts(make_results(**low))["C3"] == "fails"


def test_a_pair_needs_both_the_index_and_the_rise():
    high = {f"vanilla__II_far/same/{name}": 0.6 for name in ("digits", "novel")}
    assert verdicts(make_results(**high))["C3"] == "fails"


def test_differences_are_paired_over_seeds():
    def drift(seed):
        return 0.2 * seed

    results = make_results(
        **{
            "vanilla__G/hidden/novel": drift,
            "acquired__G/hidden/novel": lambda seed: drift(seed) + 0.4,
        }
    )
    row = next(r for r in make_rows(SCALE, results) if r.part.startswith("b:"))
    assert np.allclose(row.values, 0.4)
    assert row.verdict == "holds"


@pytest.mark.parametrize("reduced", ["full", "fixed"])
def test_equal_accuracy_replaces_the_run_that_was_better(reduced):
    results = make_results(
        **{"equal-accuracy__reduced": reduced, "equal-accuracy__II_far/same/digits": 0.6}
    )
    rows = {
        row.part: row
        for row in make_rows(SCALE, results)
        if row.claim == "C4" and row.exemplars == "same" and row.pair.endswith("digits")
    }
    fixed = rows["II_far, fixed, same accuracy"].value
    difference = rows["II_far, full - fixed, same accuracy"].value
    if reduced == "fixed":
        assert (round(fixed, 1), round(difference, 1)) == (0.6, 0.2)
    else:
        assert (round(fixed, 1), round(difference, 1)) == (0.0, 0.6)
    assert round(rows["II_far, full - fixed, same steps"].value, 1) == 0.8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("interference__II_far/same/fall", 0.05),
        ("interference__accuracy_trained/same/fall", 0.1),
        ("interference__old_index/same/fall", 0.0),
        ("translated__II_far/same/fall", 0.3),
    ],
)
def test_each_part_of_c6_can_fail_it(name, value):
    assert verdicts(make_results(**{name: value}))["C6"] == "fails"


def test_the_control_may_gain():
    assert verdicts(make_results(**{"translated__II_far/same/fall": -0.3}))["C6"] == "holds"


def test_a_seed_below_the_gate_makes_it_not_measurable():
    def one(seed):
        return float("nan") if seed == 2 else 0.01

    found = verdicts(make_results(**{"vanilla__II_far/same/digits": one}))
    assert found["C1"] == "not measurable"
    assert found["C4"] == "holds"


def test_every_row_names_its_system():
    rows = make_rows(SCALE, make_results())
    assert {row.system for row in rows if row.claim != "C2"} == {"small-cnn at 48 px (analogue)"}
    assert scales.get("paper").system == "vgg16 at 224 px"


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_the_tables_agree_and_can_be_written(n_seeds, tmp_path):
    results = make_results(n_seeds=n_seeds)
    rows = make_rows(SCALE, results)
    table = to_table(SCALE, rows, results, report_beside(SCALE, results))
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    data = to_dataset(SCALE, rows, results)
    save_result(data, tmp_path / "claims.nc")
    again = load_result(tmp_path / "claims.nc")
    assert again.attrs["kind"] == "claims"
    assert again["verdict"].values.tolist() == [row["verdict"] for row in table["claims"]]
    assert again["interval"].dims == ("claim", "bound")
    assert again["seeds"].sizes["seed"] == n_seeds
    assert set(table["summary"]) == set(STATEMENTS)
    assert "near: II_far/same/fall" in table["reported"]["near-domain control"]
    assert len(plot_claims(again).axes) == 1

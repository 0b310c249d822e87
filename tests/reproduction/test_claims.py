"""Claims from made-up measurements."""

import json

import numpy as np
import pytest

from elsewhere.analyzer import describe_methods
from elsewhere.figures import plot_claims
from elsewhere.reproduction import load_scale, make_rows, summarise, to_dataset
from elsewhere.reproduction.claims import STATEMENTS, report_beside, to_table
from elsewhere.storage import load_result, save_result

SCALE = load_scale("laptop")
KINDS = ("same", "held-out")


def make_results(n_seeds=4, **changes):
    """Return results as the paper would have them; `changes` are values by ``RUN__NAME``."""
    rng = np.random.default_rng(0)

    def about(value):
        return float(value + rng.normal(0, 0.004))

    results = {}
    for seed in range(n_seeds):
        runs = {}
        far = {"vanilla": 0.01, "acquired": 0.85, "fixed-learning": 0.03, "equal-accuracy": 0.02}
        for run, value in (far | {"fixed-cell-learning": 0.02}).items():
            names = [f"{kind}/{phase.name}" for kind in KINDS for phase in SCALE.learning]
            runs[run] = {f"II_far/{name}": about(value) for name in names}
            runs[run] |= {f"N_on/{name}": 0.98 for name in names}
        runs["equal-accuracy"] |= {"reduced": "fixed", "start_train_accuracy": 0.95}
        for run, hidden in (("vanilla", 0.1), ("acquired", 0.8)):
            for phase in SCALE.unseen:
                runs[run] |= {
                    f"equivariance/{shift}/{where}/{phase.name}": about(0.6)
                    for shift in ("nearest", "linear", "exact")
                    for where in ("inner", "border")
                }
                for layer, value in (("hidden", hidden), ("pooling", 0.1)):
                    runs[run][f"G/{layer}/{phase.name}"] = about(value)
                    runs[run][f"zero_share/{layer}/{phase.name}"] = 0.0
        falls = {"interference": (0.4, 0.5), "translated": (0.01, 0.2), "near": (0.05, 0.1)}
        for run, (fall, old) in falls.items():
            runs[run] = {"criterion_step": 100.0}
            for kind in KINDS:
                runs[run] |= {
                    f"II_far/{kind}/fall": about(fall),
                    f"N_trained/{kind}/fall": about(-0.01),
                    f"old_index/{kind}/fall": about(old),
                }
        runs["full"] = {"train_accuracy": 0.95, "largest_correlation/digits": 0.9}
        runs["fixed"] = {"train_accuracy": 0.99, "place_only_accuracy": 0.25}
        runs["fixed-cell"] = {"train_accuracy": 0.99, "place_only_accuracy": 1.0}
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
        assert (fixed, difference) == (pytest.approx(0.6), pytest.approx(0.25, abs=0.01))
    else:
        assert (round(fixed, 1), round(difference, 1)) == (0.0, 0.6)
    assert round(rows["II_far, full - fixed, same steps"].value, 1) == 0.8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("interference__II_far/same/fall", 0.05),
        ("interference__N_trained/same/fall", 0.1),
        ("interference__old_index/same/fall", 0.0),
        ("translated__II_far/same/fall", 0.3),
        ("translated__N_trained/same/fall", 0.04),
        # as many old objects are lost wherever the new ones stand
        ("translated__old_index/same/fall", 0.45),
    ],
)
def test_each_part_of_c6_can_fail_it(name, value):
    assert verdicts(make_results(**{name: value}))["C6"] == "fails"


def test_a_gain_of_the_control_is_no_loss_of_the_other():
    changes = {"translated__II_far/same/fall": -0.3, "interference__II_far/same/fall": 0.05}
    assert verdicts(make_results(**changes))["C6"] == "fails"


@pytest.mark.parametrize("run", ["vanilla", "acquired"])
@pytest.mark.parametrize("shift", ["nearest", "linear"])
def test_a_map_that_does_not_move_at_every_phase_fails_c5(run, shift):
    low = {f"{run}__equivariance/{shift}/inner/glyphs": 0.08}
    results = make_results(**low)
    assert verdicts(results)["C5"] == "fails"
    table = to_table(SCALE, make_rows(SCALE, results), results, {})
    assert table["summary"]["C5"]["parts"] == {"a": "fails", "b": "holds", "c": "holds"}


@pytest.mark.parametrize("name", ["exact/inner", "nearest/border"])
def test_whole_cells_and_the_border_decide_nothing(name):
    low = {f"vanilla__equivariance/{name}/glyphs": 0.0}
    assert verdicts(make_results(**low))["C5"] == "holds"


NOT_LEARNT = {f"N_on/{kind}/{phase.name}": 0.5 for kind in KINDS for phase in SCALE.learning}


@pytest.mark.parametrize(
    ("run", "claims"),
    [
        ("vanilla", {"C1", "C3", "C5"}),
        ("acquired", {"C3", "C4", "C5"}),
        ("fixed-learning", {"C4"}),
        ("equal-accuracy", {"C4"}),
    ],
)
def test_a_network_that_did_not_learn_its_objects_decides_nothing(run, claims):
    found = verdicts(make_results(**{f"{run}__{name}": n for name, n in NOT_LEARNT.items()}))
    assert {claim for claim, said in found.items() if said == "not measurable"} == claims


@pytest.mark.parametrize(("run", "layer"), [("vanilla", "hidden"), ("acquired", "pooling")])
def test_a_dead_layer_does_not_help(run, layer):
    dead = {f"{run}__G/{layer}/glyphs": 0.0, f"{run}__zero_share/{layer}/glyphs": 0.06}
    results = make_results(**dead)
    assert verdicts(results)["C5"] == "not measurable"
    note = to_table(SCALE, make_rows(SCALE, results), results, {})["summary"]["C5"]["note"]
    assert f"{run}: more than 5% of the vectors of the {layer} layer are zero" in note


@pytest.mark.parametrize(
    "taught",
    [
        {"fixed__train_accuracy": 0.26},  # places only
        {"fixed__train_accuracy": 0.003},  # untrained
        {"fixed__place_only_accuracy": 1.0},  # the place says it all
        {"equal-accuracy__start_train_accuracy": 0.3},
    ],
)
def test_pretraining_that_taught_places_only_decides_nothing(taught):
    results = make_results(**taught)
    assert verdicts(results)["C4"] == "not measurable"
    note = to_table(SCALE, make_rows(SCALE, results), results, {})["summary"]["C4"]["note"]
    assert "little beyond the place" in note


def test_classes_in_cells_of_their_own_stand_beside():
    results = make_results(**{"fixed-cell-learning__II_far/same/digits": 0.9})
    assert verdicts(results)["C4"] == "holds"
    rows = [row for row in make_rows(SCALE, results) if "cell of its own" in row.part]
    assert rows
    assert not any(row.counts for row in rows)


def test_one_pretrained_network_gives_no_interval_over_networks():
    results = make_results()
    for runs in results.values():
        runs["imagenet"] = {}
        for phase in SCALE.learning:
            for kind in KINDS:
                runs["imagenet"][f"II_far/{kind}/{phase.name}"] = 0.9
                runs["imagenet"][f"N_on/{kind}/{phase.name}"] = 0.99
    table = to_table(SCALE, make_rows(SCALE, results), results, {})
    assert table["summary"]["C2"]["verdict"] == "holds"
    assert "not over networks" in table["summary"]["C2"]["note"]
    assert all(
        "not over networks" in row["note"] for row in table["claims"] if row["claim"] == "C2"
    )


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
    assert load_scale("paper").system == "vgg16 at 224 px"


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


def test_the_methods_text_of_claims():
    results = make_results(n_seeds=3)
    text = describe_methods(to_dataset(SCALE, make_rows(SCALE, results), results))
    assert "at the scale 'laptop', on small-cnn at 48 px (analogue)" in text
    assert "with 3 seeds (0, 1 and 2)" in text
    assert "intervals over seeds with Student's t" in text

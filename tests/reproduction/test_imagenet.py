"""Claim C2 with three heads, from given and from random weights: all of it on a tiny network."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from elsewhere.errors import CurriculumError, ElsewhereError, InputError
from elsewhere.reproduction import load_scale, make_runs, plan, reproduce
from elsewhere.reproduction.claims import make_rows, summarise
from elsewhere.reproduction.conditions import HEADED
from elsewhere.reproduction.paper import draw_paper
from elsewhere.storage import load_result
from elsewhere.training import list_checkpoints
from tests.reproduction.pooled import NAME, write_weights

FOLDER = Path(__file__).parent / "tiny_imagenet"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(write_weights(tmp_path_factory.mktemp("weights") / "made.pth"))


@pytest.fixture(scope="module")
def scale():
    return load_scale(FOLDER, trust={NAME})


def run(scale, weights, out, **options):
    """Run seed 3 in this process."""
    reproduce(
        scale,
        out,
        first_seed=3,
        workers=1,
        device="cpu",
        imagenet_weights=weights,
        trust={NAME},
        **options,
    )
    return out


@pytest.fixture(scope="module")
def done(scale, weights, tmp_path_factory):
    return run(scale, weights, tmp_path_factory.mktemp("imagenet"), figures=False)


def values_of(out, run, seed=3):
    return json.loads((out / "seeds" / str(seed) / f"{run}.json").read_text())["values"]


def final(out, run, seed=3):
    return list_checkpoints(out / "seeds" / str(seed) / run, trust={NAME})[-1]


def test_only_c2_is_asked_of_the_system_that_is_named(done, scale):
    table = json.loads((done / "claims.json").read_text())
    assert set(table["summary"]) == {"C2"}
    assert table["summary"]["C2"]["verdict"] in {"not measurable", "shown in this run",
                                                 "not shown in this run"}  # fmt: skip
    assert {row["system"] for row in table["claims"]} == {"a tiny network, 24 px"}
    parts = {row["statistic"] for row in table["claims"]}
    assert len(parts) == 9
    decides = {row["statistic"] for row in table["claims"] if row["decides"]}
    assert decides == {
        f"II_far, {name}, {head}"
        for name in ("pretrained", "pretrained - random")
        for head in ("own head", "head on kept scores")
    }
    assert set(json.loads((done / "seeds/3/measurements.json").read_text())) == set(HEADED)
    assert "not over networks" in table["summary"]["C2"]["note"]


def test_the_layers_below_the_heads_are_the_same_and_stay(done, weights):
    given = torch.load(weights, weights_only=True)
    for kind in ("own", "flatten", "logits"):
        state = load_file(final(done, f"pretrained-{kind}").path)
        for name in ("first.weight", "norm.weight", "norm.running_var", "second.weight"):
            assert torch.equal(state[name], given[name]), (kind, name)
    kept = load_file(final(done, "pretrained-logits").path)
    assert torch.equal(kept["head.kept.weight"], given["head.weight"])
    states = [load_file(final(done, f"random-{k}").path) for k in ("own", "flatten", "logits")]
    for name in ("first.weight", "norm.running_mean", "second.weight"):
        assert torch.equal(states[0][name], states[1][name])
        assert torch.equal(states[0][name], states[2][name])
        assert not torch.equal(states[0][name], given[name])
    assert states[0]["norm.running_mean"].abs().max() > 0  # measured, not 0 and 1


def test_conditions_differ_in_nothing_but_their_weights(done):
    cards = [final(done, run) for run in HEADED]
    for name in ("categories", "exemplars", "trained", "pictures", "mean", "std", "gain"):
        assert len({str(getattr(card, name)) for card in cards}) == 1, name
    assert {card.batch_norm for card in cards[:3]} == {"frozen"}
    assert {card.batch_norm for card in cards[3:]} == {"recalibrated"}
    assert {card.passes.partition(" of ")[0] for card in cards} == {"a table"}


def test_layers_are_followed_to_the_scores(done):
    found = load_result(done / "seeds" / "3" / "pretrained-logits-glyphs-similarity.nc")
    assert found["layer"].values.tolist() == ["first", "second", "pool", "head.kept", "logits"]
    values = values_of(done, "pretrained-logits")
    assert values["G/first/glyphs"] == pytest.approx(
        float(found["cosine_G_away"].sel(layer="first"))
    )
    lost = float(found["identification_lost"].sel(layer="pool"))
    assert values["identification/lost/pool/glyphs"] == pytest.approx(lost)
    assert not any(name.startswith("G/") for name in values_of(done, "pretrained-own"))
    reported = json.loads((done / "claims.json").read_text())["reported"]
    assert "pretrained-logits: G/pool/glyphs" in reported["layers"]
    assert "random-logits: identification/hidden/pool/glyphs" in reported["lost or hidden"]


@pytest.mark.long
def test_all_weights_can_be_trained_beside_and_figures_are_drawn(done, scale, weights, tmp_path):
    out = shutil.copytree(done, tmp_path / "more")
    run(scale, weights, out, confounds=True)
    given = torch.load(weights, weights_only=True)
    trained = load_file(final(out, "pretrained-all").path)
    assert not torch.equal(trained["second.weight"], given["second.weight"])
    assert torch.equal(trained["norm.running_var"], given["norm.running_var"])
    rows = json.loads((out / "claims.json").read_text())["claims"]
    beside = {row["decides"] for row in rows if "all weights" in row["statistic"]}
    assert beside == {False}
    assert set(values_of(out, "random-all")) >= {"G/pool/glyphs", "II_far/same/digits"}
    assert len(draw_paper(out).parts) >= 2
    drawn = {path.name for path in (out / "figures").glob("*.svg")}
    assert "a tiny network, 24 px" in (out / "figures" / "claims.svg").read_text()
    assert {
        "claims.svg",
        "claims-all.svg",
        "layerwise-glyphs.svg",
        "accuracy-maps-digits-same.svg",
        "accuracy-displacement-digits.svg",
    } <= drawn


def test_a_verdict_needs_both_heads_that_decide(scale):
    """Made values: what each head gives decides, and the head on the map does not."""

    def verdict(**far):
        results = {}
        for seed in range(5):
            wobble = 0.01 * np.sin(seed)
            results[seed] = {
                run: {"N_on/same/digits": 1.0, "N_on/held-out/digits": 1.0,
                      "II_far/same/digits": far.get(run.replace("-", "_"), 0.0) + wobble,
                      "II_far/held-out/digits": 0.5}
                for run in HEADED
            }  # fmt: skip
        return summarise(make_rows(scale, results))["C2"]

    assert verdict(pretrained_own=0.95, pretrained_logits=0.9) == "holds"
    assert verdict(pretrained_own=0.95, pretrained_logits=0.7) == "fails"
    assert verdict(pretrained_own=0.95, pretrained_logits=0.95, random_own=0.6) == "fails"
    assert verdict(pretrained_own=0.95, pretrained_logits=0.9, random_flatten=1.0) == "holds"


def test_it_goes_on_where_it_stood_and_adds_seeds(done, scale, weights):
    events = []
    run(scale, weights, done, figures=False, progress=events.append)
    assert {event.stage for event in events} == {"skipped"}


def test_bad_input_is_told_in_one_line(scale, tmp_path):
    with pytest.raises(InputError, match=r"no.pth are no file.*state file of tests.reproduction"):
        make_runs(scale, imagenet_weights="no.pth")
    with pytest.raises(ElsewhereError, match="no ImageNet weights") as told:
        reproduce(scale, tmp_path / "out", first_seed=3, device="cpu", trust={NAME})
    assert "\n" not in str(told.value)
    assert not (tmp_path / "out").exists()
    (tmp_path / "scale.toml").write_text(
        f'like = "imagenet"\n[network]\nname = "{NAME}"\n[thresholds]\npretrained = 0.5\n'
    )
    with pytest.raises(
        CurriculumError, match=r"line 4: thresholds: expected pretrained, random, difference.*got p"
    ):
        load_scale(tmp_path, trust={NAME})


def test_a_folder_like_it_on_another_canvas_is_not_called_by_its_name(tmp_path):
    (tmp_path / "scale.toml").write_text('like = "imagenet"\n[canvas]\nsize = 96\n')
    assert load_scale(tmp_path).system == "efficientnet-lite0 at 96 px (analogue)"


def test_its_plan_and_its_definition(scale, weights):
    found = plan(scale, imagenet_weights=weights, seeds=2)
    assert found.runs == 12
    own = load_scale("imagenet")
    assert own.system == "EfficientNet-Lite0, 224 px: an analogue of C2, not VGG16"
    runs = make_runs(own)
    assert [run.name for run in runs] == list(HEADED)
    assert {run.network.random for run in runs[:3]} == {False}
    assert {run.network.random for run in runs[3:]} == {True}
    assert all(each.phases == runs[0].phases for each in runs)
    assert len(own.conditions) == 8

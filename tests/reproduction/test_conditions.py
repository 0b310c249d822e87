"""Scales and the runs that they are made of."""

import dataclasses

import pytest

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.reproduction import make_runs, scales
from elsewhere.reproduction.comparisons import exact_grid, load_shown, trained_location
from elsewhere.stimuli import load_objects
from elsewhere.training import Choice, resolve


@pytest.fixture(params=list(scales))
def scale(request):
    return scales.get(request.param)


def by_name(runs):
    return {run.name: run for run in runs}


def test_an_unknown_scale_is_refused():
    with pytest.raises(UnknownNameError, match="laptop"):
        scales.get("laptpo")


def test_runs_come_after_what_they_need(scale):
    runs = make_runs(scale, confounds=True, imagenet_weights="imagenet")
    names = [run.name for run in runs]
    assert len(set(names)) == len(names)
    for place, run in enumerate(runs):
        assert set(run.needs) <= set(names[:place]), run.name


def test_the_conditions_differ_in_one_thing_only(scale):
    runs = by_name(make_runs(scale))
    full, fixed = runs["full"].phases[0], runs["fixed"].phases[0]
    assert dataclasses.replace(full, environment="") == dataclasses.replace(fixed, environment="")
    assert (full.environment, fixed.environment) == ("full", "fixed:cell")
    assert runs["vanilla"].phases == runs["acquired"].phases == runs["fixed-learning"].phases
    # the control sees the same images, for as long and as fast: only where they stand differs
    for place in (0, 1):
        one, everywhere = (runs[name].phases[place] for name in ("interference", "translated"))
        assert dataclasses.replace(everywhere, environment=one.environment) == one
        near = runs["near"].phases[place]
        assert (near.steps, near.learning_rate) == (one.steps, one.learning_rate)
    assert runs["translated"].phases[1].environment == "full"
    assert runs["interference"].phases[1].environment == "one"
    assert all(run.network == scale.network for run in runs.values())


def test_confounds_change_what_they_are_named_after():
    scale = scales.get("laptop")
    runs = by_name(make_runs(scale, confounds=True))
    assert runs["fixed-shared-pretraining"].phases[0].environment == "fixed:shared"
    assert runs["pinned-pretraining"].phases[0].environment == "pinned"
    assert runs["vanilla-gain-1"].network.gain == 1.0
    assert runs["acquired-background-mean"].canvas.background == "mean"
    assert runs["acquired-background-mean"].start == "full-background-mean"
    assert {phase.environment for phase in runs["acquired-centre"].phases} == {"centre"}
    assert runs["acquired-centre"].start == "full"
    assert "vanilla-gain-1" not in by_name(make_runs(scale))


def test_imagenet_runs_only_where_weights_are_given(tmp_path):
    scale = scales.get("quick")
    assert "imagenet" not in by_name(make_runs(scale))
    run = by_name(make_runs(scale, imagenet_weights="imagenet"))["imagenet"]
    assert (run.network.name, run.canvas.size, run.canvas.object_size) == ("vgg16", 224, 50)
    with pytest.raises(InputError, match=r"none\.pth"):
        make_runs(scale, imagenet_weights=str(tmp_path / "none.pth"))


@pytest.mark.parametrize("name", ["quick", "laptop"])
def test_no_glyph_is_both_pretrained_and_learnt(name):
    scale, total = scales.get(name), len(load_objects("glyphs", size=11).category_names)
    first = scale.pretraining[0].categories
    taken = [range(first)]
    for phase in (*scale.learning, scale.near[0], *scale.unseen):
        if phase.objects == "glyphs":
            taken.append(
                range(phase.categories.skip, phase.categories.skip + phase.categories.count)
            )
    every = [place for part in taken for place in part]
    assert len(set(every)) == len(every)
    assert max(every) < total


def test_choices_mean_the_same_in_every_run_of_a_seed(tiny):
    runs = by_name(make_runs(tiny))
    learnt = resolve(runs["vanilla"].curriculum(3))[0].categories
    pretrained = resolve(runs["full"].curriculum(3))[0].categories
    unseen = load_shown(tiny.unseen[0], tiny.canvas, 3).category_names
    assert load_shown(tiny.learning[0], tiny.canvas, 3).category_names == learnt
    assert resolve(runs["fixed"].curriculum(3))[0].categories == pretrained
    assert not {*learnt} & {*pretrained}
    assert not {*unseen} & {*learnt, *pretrained}
    assert load_shown(tiny.learning[0], tiny.canvas, 4).category_names != learnt


def test_a_phase_without_a_choice_is_refused(tiny):
    with pytest.raises(InputError, match="which of its set's classes"):
        load_shown(dataclasses.replace(tiny.learning[0], categories=3), tiny.canvas, 0)


def test_a_smoke_test_is_short(scale):
    short = scale.smoke(3)
    assert short.fingerprint != scale.fingerprint
    assert all(run.n_steps <= 3 * len(run.phases) for run in make_runs(short))


def test_a_fingerprint_covers_every_number():
    scale = scales.get("laptop")
    learn, further = scale.interference
    slower = learn, dataclasses.replace(further, learning_rate=1e-3)
    assert dataclasses.replace(scale, interference=slower).fingerprint != scale.fingerprint
    others = dataclasses.replace(scale.near[0], categories=Choice(10, 309)), scale.near[1]
    assert dataclasses.replace(scale, near=others).fingerprint != scale.fingerprint


@pytest.mark.parametrize("name", list(scales))
def test_maps_are_compared_at_whole_cells_and_at_the_trained_location(name):
    scale = scales.get(name)
    place = trained_location("one", scale.canvas)
    grid = exact_grid(scale.canvas, place, scale.exact_stride)
    assert grid.index_of(place) is not None
    assert len(grid) >= 9
    assert all((y - place[0]) % scale.exact_stride == 0 for y in grid.y)
    assert grid.check(scale.canvas) == grid

"""Scales and the runs that they are made of."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from elsewhere.errors import InputError, StorageError, UnknownNameError
from elsewhere.models import load_model
from elsewhere.reproduction import load_scale, make_runs, scales
from elsewhere.reproduction.comparisons import load_phase, phase_grid
from elsewhere.stimuli import Canvas, load_objects
from elsewhere.training import Choice, resolve
from elsewhere.training.initial_network import start_model


@pytest.fixture(params=list(scales))
def scale(request):
    return load_scale(request.param)


def by_name(runs):
    return {run.name: run for run in runs}


def test_an_unknown_scale_is_refused():
    with pytest.raises(UnknownNameError, match="laptop"):
        load_scale("laptpo")


def test_a_folder_under_a_scales_name_is_the_scale_only_if_it_is_one(
    tiny_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick").mkdir()  # as `elsewhere reproduce --scale quick --out quick` leaves it
    assert load_scale("quick").canvas.size == 48
    shutil.copytree(tiny_folder, tmp_path / "quick", dirs_exist_ok=True)
    with pytest.raises(InputError, match=r"quick is a scale .*write \./quick for your own"):
        load_scale("quick")
    assert load_scale("./quick").canvas.size == load_scale(tmp_path / "quick").canvas.size == 20
    with pytest.raises(StorageError, match=r"holds no scale\.toml"):
        load_scale(tmp_path)


def test_runs_come_after_what_they_need(scale):
    runs = make_runs(scale, confounds=True, imagenet_weights="imagenet")
    names = [run.name for run in runs]
    assert len(set(names)) == len(names)
    for place, run in enumerate(runs):
        assert set(run.needs) <= set(names[:place]), run.name


@pytest.mark.parametrize("start", ["near", "full"])
def test_a_condition_that_starts_from_itself_in_the_end_is_refused(tiny_folder, tmp_path, start):
    folder = shutil.copytree(tiny_folder, tmp_path / "tiny")
    full = folder / "full.toml"
    full.write_text(f'start = "{start}"\n{full.read_text()}')
    with pytest.raises(InputError, match=f"full.toml starts from {start}, which is not made"):
        make_runs(load_scale(folder))


@pytest.mark.parametrize("name", [n for n in scales if load_scale(n).question == "paper"])
def test_the_conditions_differ_in_one_thing_only(name):
    scale = load_scale(name)
    runs = by_name(make_runs(scale))
    full, fixed = runs["full"].phases[0], runs["fixed"].phases[0]
    assert dataclasses.replace(full, environment="") == dataclasses.replace(fixed, environment="")
    assert (full.environment, fixed.environment) == ("full", "fixed:shared")
    assert runs["fixed-cell"].phases[0].environment == "fixed:cell"
    assert runs["vanilla"].phases == runs["acquired"].phases == runs["fixed-learning"].phases
    # the control sees the same images, for as long and as fast: only where they stand differs
    for place in (0, 1):
        one, everywhere = (runs[name].phases[place] for name in ("interference", "translated"))
        assert dataclasses.replace(everywhere, environment=one.environment) == one
        near = runs["near"].phases[place]
        assert (near.steps, near.learning_rate) == (one.steps, one.learning_rate)
    assert runs["translated"].phases[1].environment == "full"
    assert runs["interference"].phases[1].environment == "one:seed"
    assert all(run.network == scale.network for run in runs.values())


def test_confounds_change_what_they_are_named_after():
    scale = load_scale("laptop")
    runs = by_name(make_runs(scale, confounds=True))
    assert runs["pinned-pretraining"].phases[0].environment == "pinned"
    assert runs["vanilla-gain-1"].network.gain == 1.0
    assert runs["acquired-background-mean"].canvas.background == "mean"
    assert runs["acquired-background-mean"].start == "full-background-mean"
    assert {phase.environment for phase in runs["acquired-centre"].phases} == {"centre"}
    assert runs["acquired-centre"].start == "full"
    assert "vanilla-gain-1" not in by_name(make_runs(scale))


def test_imagenet_runs_only_where_weights_are_given(tmp_path):
    scale = load_scale("quick")
    assert "imagenet" not in by_name(make_runs(scale))
    run = by_name(make_runs(scale, imagenet_weights="imagenet"))["imagenet"]
    assert (run.network.name, run.canvas.size, run.canvas.object_size) == ("vgg16", 224, 50)
    with pytest.raises(InputError, match=r"none\.pth"):
        make_runs(scale, imagenet_weights=str(tmp_path / "none.pth"))
    (tmp_path / "both.pth").touch()
    both = make_runs(scale, imagenet_weights=str(tmp_path / "both.pth"), state_key="ema")
    assert by_name(both)["imagenet"].network.state_key == "ema"
    for weights in (None, "imagenet"):
        with pytest.raises(InputError, match=r"--state-key ema chooses within a file"):
            make_runs(scale, imagenet_weights=weights, state_key="ema")


def test_the_imagenet_condition_takes_the_input_that_was_published_with_its_file(tmp_path):
    name = "mobilenet_v3_small"  # VGG16's file has half a gigabyte
    path = tmp_path / "copy.pth"
    torch.save(load_model(name, seed=1).module.state_dict(), path)
    run = by_name(make_runs(load_scale("quick"), imagenet_weights=str(path)))["imagenet"]
    network = dataclasses.replace(run.network, name=name)
    model = start_model(dataclasses.replace(run, network=network).curriculum(100))
    assert model.transform.mean == (0.485, 0.456, 0.406)
    assert model.transform.std == (0.229, 0.224, 0.225)
    assert "taken for torchvision's" in model.notes[0]


@pytest.mark.parametrize("name", ["quick", "laptop"])
def test_no_glyph_is_both_pretrained_and_learnt(name):
    scale, total = load_scale(name), len(load_objects("glyphs", size=11).category_names)
    first = scale.pretraining[0].categories
    taken = [range(first)]
    for phase in (*scale.learning, scale.phases("near")[0], *scale.unseen):
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
    unseen = load_phase(tiny.unseen[0], tiny.canvas, 3, held_out=True).category_names
    assert load_phase(tiny.learning[0], tiny.canvas, 3, held_out=False).category_names == learnt
    assert resolve(runs["fixed"].curriculum(3))[0].categories == pretrained
    assert not {*learnt} & {*pretrained}
    assert not {*unseen} & {*learnt, *pretrained}
    assert load_phase(tiny.learning[0], tiny.canvas, 4, held_out=False).category_names != learnt


def test_a_phase_without_a_choice_is_refused(tiny):
    with pytest.raises(InputError, match="which of its set's classes"):
        load_phase(
            dataclasses.replace(tiny.learning[0], categories=3), tiny.canvas, 0, held_out=False
        )


def test_a_smoke_test_is_short(scale):
    short = scale.smoke(3)
    assert short.fingerprint != scale.fingerprint
    runs = make_runs(short)
    assert all(run.n_steps <= 3 * len(run.phases) for run in runs)
    asked = [(p.criterion, p.steps) for run in runs for p in run.phases if p.criterion is not None]
    assert all(criterion.window <= steps for criterion, steps in asked)
    assert asked or all(run.phases[-1].criterion is None for run in make_runs(scale))


def test_a_fingerprint_covers_every_number(with_phases):
    scale = load_scale("laptop")
    learn, further = scale.phases("interference")
    slower = dataclasses.replace(further, learning_rate=1e-3)
    assert with_phases(scale, "interference", learn, slower).fingerprint != scale.fingerprint
    near, far = scale.phases("near")
    other = dataclasses.replace(near, categories=Choice(10, 309))
    assert with_phases(scale, "near", other, far).fingerprint != scale.fingerprint
    assert dataclasses.replace(scale, old_exemplars=5).fingerprint != scale.fingerprint


@pytest.mark.parametrize(("size", "side", "stride"), [(48, 11, 8), (64, 15, 16), (224, 50, 16)])
def test_maps_are_compared_at_all_phases_off_the_border(size, side, stride):
    canvas = Canvas(size, side)
    grid = phase_grid(canvas, stride)
    assert grid.check(canvas) == grid
    for values, centre in zip((grid.y, grid.x), canvas.centre, strict=True):
        inner = [
            value
            for value in values
            if canvas.valid[0] + stride <= value <= canvas.valid[-1] - stride
        ]
        assert {(value - centre) % stride for value in inner} == set(range(stride))
        assert (values[0], values[-1]) == (canvas.valid[0], canvas.valid[-1])


def test_a_seed_redraws_the_place_the_objects_and_their_exemplars(tiny):
    run = by_name(make_runs(tiny))["vanilla"]
    places = [run.trained(seed) for seed in range(40)]
    assert len({*places}) > 30
    assert all(tiny.canvas.check(place) == place for place in places)
    # edges and middle alike: half of uniform draws lie in each half
    assert 8 < sum(y < tiny.canvas.centre[0] for y, _ in places) < 32
    for other in make_runs(tiny):
        assert other.trained(3) == places[3]
    for phase in resolve(run.curriculum(3)):
        assert phase.placement.locations(0).tolist() == [list(places[3])]
    learn, further = by_name(make_runs(tiny))["translated"].phases
    assert (learn.environment, further.environment) == ("one:seed", "full")
    first, second = (
        load_phase(tiny.unseen[0], tiny.canvas, seed, held_out=True) for seed in (3, 4)
    )
    assert first.category_names != second.category_names
    every = dataclasses.replace(tiny.unseen[0], categories=Choice(339))
    shown = [load_phase(every, tiny.canvas, seed, held_out=True) for seed in (3, 4)]
    pictures = [dict(zip(each.categories, each.masks, strict=True)) for each in shown]
    changed = [(pictures[0][name] != pictures[1][name]).any() for name in pictures[0]]
    assert np.mean(changed) > 0.99


def test_the_centre_stays_the_centre():
    scale = load_scale("laptop")
    run = by_name(make_runs(scale, confounds=True))["vanilla-centre"]
    assert run.trained(1) == run.trained(2) == scale.canvas.centre

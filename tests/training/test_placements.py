"""Environments: valid locations, the promised distributions, what the place gives away."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from elsewhere.errors import CanvasError, ElsewhereError, InputError, UnknownNameError
from elsewhere.stimuli import Canvas
from elsewhere.training import environments, make_placement, place_only_accuracy
from elsewhere.training.batches import draw_locations
from elsewhere.training.seeds import make_generator

CANVAS = Canvas(48, 11)
SPECS = (
    "one",
    "one:20,30",
    "centre",
    "places:2",
    "places:8",
    "at:5,5;24,40",
    "full",
    "fixed:point",
    "fixed:cell",
    "fixed:shared",
    "pinned",
)


def draw(placement, n, seed=0, n_exemplars=1):
    generator = make_generator(seed)
    category = torch.randint(placement.n_classes, (n,), generator=generator)
    exemplar = torch.randint(n_exemplars, (n,), generator=generator)
    locations = draw_locations(placement, category, exemplar, generator)
    return category.numpy(), exemplar.numpy(), locations.numpy()


def test_every_environment_is_tried_here():
    assert {spec if spec in environments else spec.split(":")[0] for spec in SPECS} == set(
        environments
    )


@settings(max_examples=60, deadline=None)
@given(
    spec=st.sampled_from(SPECS[2:5] + SPECS[6:]),
    size=st.integers(12, 60),
    side=st.integers(1, 9),
    n_classes=st.integers(4, 30),
    n_exemplars=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_locations_are_always_valid(spec, size, side, n_classes, n_exemplars, seed):
    canvas = Canvas(size, side)
    try:
        placement = make_placement(
            spec, canvas, n_classes=n_classes, n_exemplars=n_exemplars, seed=seed
        )
    except InputError:
        assert len(canvas.valid) < 8  # only where there is no room
        return
    categories, _, locations = draw(placement, 200, seed, n_exemplars)
    assert all(canvas.contains(place) for place in locations.tolist())
    for category in range(n_classes):
        density = placement.density(category)
        assert density.sum() == pytest.approx(1)
        low = canvas.valid[0]
        here = locations[categories == category] - low
        assert (density[here[:, 0], here[:, 1]] > 0).all()


@pytest.mark.parametrize("spec", SPECS)
def test_draws_follow_the_density(spec):
    placement = (
        make_placement(spec, Canvas(16, 5), n_classes=5, n_exemplars=4, seed=3)
        if (spec not in ("one:20,30", "at:5,5;24,40"))
        else make_placement(spec, CANVAS, n_classes=5, seed=3)
    )
    categories, _, locations = draw(placement, 20_000, n_exemplars=4)
    low, side = placement.canvas.valid[0], len(placement.canvas.valid)
    for category in (0, 4):
        here = locations[categories == category] - low
        seen = np.zeros((side, side))
        np.add.at(seen, (here[:, 0], here[:, 1]), 1)
        expected = placement.density(category) * len(here)
        possible = expected > 0
        assert seen[~possible].sum() == 0
        if possible.sum() > 1:
            test = stats.chisquare(seen[possible], expected[possible])
            assert test.pvalue > 1e-4


def test_known_places():
    def places(spec):
        return make_placement(spec, CANVAS, n_classes=3).locations(0).tolist()

    assert places("one") == [[24, 5]]
    assert places("one:7,9") == [[7, 9]]
    assert places("centre") == [list(CANVAS.centre)]
    assert places("places:2") == [[24, 5], [24, 42]]
    assert len(places("places:8")) == 8
    assert places("at:30,6;5,5") == [[5, 5], [30, 6]]
    assert len(places("full")) == 38 * 38


def test_full_is_uniform():
    _, _, locations = draw(make_placement("full", CANVAS, n_classes=2), 60_000)
    counts = np.bincount((locations[:, 0] - 5) * 38 + locations[:, 1] - 5, minlength=38 * 38)
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("n_classes", [4, 7, 10, 23, 150])
def test_cells_tile_the_canvas(n_classes):
    placement = make_placement("fixed:cell", CANVAS, n_classes=n_classes, seed=1)
    covered = sum(placement.support(c).astype(int) for c in range(n_classes))
    assert (covered == 1).all()
    sizes = [placement.support(c).sum() for c in range(n_classes)]
    assert max(sizes) <= 2.5 * min(sizes)


def test_fixed_points_differ_and_reach_the_edges():
    placement = make_placement("fixed:point", CANVAS, n_classes=16)
    places = np.concatenate([placement.locations(c) for c in range(16)])
    assert len({tuple(place) for place in places.tolist()}) == 16
    assert places.min() == 5
    assert places.max() == 42


def test_shared_places_have_four_classes_or_more():
    placement = make_placement("fixed:shared", CANVAS, n_classes=18)
    places = [tuple(placement.locations(c)[0].tolist()) for c in range(18)]
    assert min(places.count(place) for place in places) >= 4
    assert place_only_accuracy(placement) <= 0.25


def test_pinned_exemplars_stay_and_their_class_covers_the_canvas():
    placement = make_placement("pinned", CANVAS, n_classes=3, n_exemplars=25)
    _, _, first = draw(placement, 500, n_exemplars=25)
    categories, exemplars, locations = draw(placement, 500, n_exemplars=25)
    assert (first == locations).all()
    for row in range(0, 500, 37):
        same = (categories == categories[row]) & (exemplars == exemplars[row])
        assert len(np.unique(locations[same], axis=0)) == 1
    assert place_only_accuracy(placement) == pytest.approx(1 / 3)
    assert np.ptp(placement.locations(2), axis=0).tolist() == [37, 37]


def test_place_only_accuracy_is_that_of_the_best_rule():
    placement = make_placement("fixed:cell", Canvas(12, 3), n_classes=6, seed=2)
    assert place_only_accuracy(placement) == 1
    for spec in ("one", "full", "places:3", "pinned"):
        placement = make_placement(spec, CANVAS, n_classes=4, n_exemplars=9)
        assert place_only_accuracy(placement) == pytest.approx(0.25)
    assert place_only_accuracy(make_placement("fixed:shared", CANVAS, n_classes=8)) == 0.25


def test_the_seed_moves_the_classes():
    def places(seed):
        placement = make_placement("fixed:point", CANVAS, n_classes=9, seed=seed)
        return [placement.locations(c).tolist() for c in range(9)]

    assert places(0) == places(0) != places(1)


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("fixed:points", UnknownNameError, "fixed:point"),
        ("ful", UnknownNameError, "full"),
        ("one:3,24", CanvasError, "off the canvas"),
        ("at:5,5;24,60", CanvasError, "off the canvas"),
        ("at:", InputError, "no location"),
        ("places:", InputError, "how many"),
        ("places:0", InputError, "how many"),
        ("places:9999", InputError, "does not fit"),
        ("centre:3", InputError, "no argument"),
        ("full:3", InputError, "no argument"),
        ("fixed:shared", InputError, "share"),
    ],
)
def test_bad_environments(spec, error, words):
    with pytest.raises(error, match=words) as caught:
        make_placement(spec, CANVAS, n_classes=3)
    assert isinstance(caught.value, ElsewhereError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["fixed:point", "fixed:cell", "pinned"])
def test_more_places_than_the_canvas_has(spec):
    with pytest.raises(InputError, match="canvas"):
        make_placement(spec, Canvas(6, 4), n_classes=30, n_exemplars=30)

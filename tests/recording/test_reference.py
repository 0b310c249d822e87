"""Another reference is a source of its own: nothing that was found for the old one goes with it."""

import numpy as np
import pytest
import torch

import elsewhere
from elsewhere.errors import CanvasError, InputError
from elsewhere.models import load_model
from elsewhere.probes import fit_probe, probe
from elsewhere.probes.features import FeatureReading, gather
from elsewhere.recording import Sweep
from elsewhere.stimuli import Canvas, Grid, load_objects
from elsewhere.storage import open_recording
from tests.roles import similarity

CANVAS = Canvas(32, 8, background=70)
GRID = Grid.parse("2x3", CANVAS)
PLACES = ((4, 4), (4, 16), (28, 28))
LAYERS = ("conv1_1", "pool2", "fc3")


@pytest.fixture(scope="module")
def model():
    return load_model("small-cnn", model_args={"channels": "4-6", "canvas": 32, "hidden": 9})


@pytest.fixture(scope="module")
def objects():
    return load_objects("digits", size=8, categories=["3", "7"], per_category=6)


def sweep_of(model, objects, engine, **options):
    return Sweep(model, objects, canvas=CANVAS, grid=GRID, layers=LAYERS, engine=engine, **options)


def plain(model, objects, layer, place):
    """Return activations of all objects at a place, by one plain pass for each."""
    color = CANVAS.background_color()
    images = CANVAS.paste(objects.patches(color), [place] * len(objects), color)
    values, found = model.transform.apply(torch.from_numpy(images)), []
    part = model.module.get_submodule(model.aliases[layer])
    handle = part.register_forward_hook(lambda _, __, output: found.append(output.clone()))
    with torch.no_grad():
        for image in values:
            model.module(image[None])
    handle.remove()
    return torch.cat(found).flatten(1).numpy()


@pytest.fixture(params=["dense", "incremental", "recording", "arrays"])
def source(request, model, objects, tmp_path):
    live = sweep_of(model, objects, "incremental" if request.param == "incremental" else "dense")
    if request.param in ("dense", "incremental"):
        assert live.choice.name == request.param  # found out before anything is moved
        yield live
        return
    path = elsewhere.record(live, tmp_path / "a.h5")
    with open_recording(path) as recording:
        if request.param == "recording":
            yield recording
            return
        arrays = {name: recording[name].values for name in recording}
        yield elsewhere.ArraySource(
            arrays, y=GRID.y, x=GRID.x, objects=objects.ids, categories=objects.categories
        )


def test_activations_at_any_reference_are_those_of_plain_passes(source, model, objects):
    readings = {layer.name: FeatureReading() for layer in source.layers}
    before = source.design.reference
    for place in (*PLACES, before, PLACES[0]):
        found = gather(source, readings, np.arange(len(objects)), [place], max_memory=2**28)
        for layer in LAYERS:
            expected = plain(model, objects, layer, place)
            np.testing.assert_allclose(found[layer], expected, atol=1e-5 * abs(expected).max())
        assert source.design.reference == before


@pytest.fixture(scope="module")
def probed(model, objects):
    """Probes of the dense sweep, by where they are trained."""
    places = ("left", "centre", "4,16", "4,4;28,28", "each")
    return {at: probe(sweep_of(model, objects, "dense"), train_at=at, controls=()) for at in places}


def test_probes_are_trained_where_they_are_told(source, model, objects, probed):
    dense = sweep_of(model, objects, "dense")
    for train_at, expected in probed.items():
        found = probe(source, train_at=train_at, controls=())
        np.testing.assert_array_equal(found["accuracy"], expected["accuracy"])
    one, other = (fit_probe(each, "fc3", train_at="centre") for each in (source, dense))
    np.testing.assert_allclose(one.coef, other.coef, atol=1e-4 * abs(other.coef).max())


@pytest.mark.parametrize("engine", ["dense", "incremental"])
def test_probes_of_several_packs_of_layers(model, objects, probed, engine, monkeypatch):
    monkeypatch.setattr(
        "elsewhere.probes.engine._packs", lambda source, layers, *_: ([name] for name in layers)
    )
    found = probe(sweep_of(model, objects, engine), train_at="each", controls=())
    np.testing.assert_array_equal(found["accuracy"], probed["each"]["accuracy"])


@pytest.fixture(scope="module")
def compared(model, objects):
    """Similarities of the dense sweep, by the reference that it was made with."""
    return {at: similarity(sweep_of(model, objects, "dense", reference=at)) for at in PLACES}


def test_similarity_to_another_reference_is_that_of_a_sweep_with_it(source, compared):
    for place, expected in compared.items():
        found = similarity(source.at(place))
        assert (found.attrs["reference_y"], found.attrs["reference_x"]) == place
        np.testing.assert_allclose(found["similarity"], expected["similarity"], atol=1e-5)


@pytest.mark.parametrize("engine", ["dense", "incremental"])
def test_a_reference_off_the_grid_too(model, objects, engine):
    sweep = sweep_of(model, objects, engine)
    similarity(sweep)
    for place in ((9, 11), (4, 11), (9, 4)):
        expected = plain(model, objects, "fc3", place)
        for moved in (sweep.at(place), sweep_of(model, objects, engine, reference=place)):
            found = gather(
                moved, {"fc3": FeatureReading()}, np.arange(12), [place], max_memory=2**28
            )
            np.testing.assert_allclose(found["fc3"], expected, atol=1e-5 * abs(expected).max())
    with pytest.raises(CanvasError):
        sweep.at((0, 0))


def test_an_engine_is_compiled_once_for_the_places_of_a_grid(model, objects, monkeypatch):
    sweep = sweep_of(model, objects, "incremental")
    engine = sweep.choice.compiled
    assert sweep.at(PLACES[1]).choice.compiled is engine
    assert sweep.at((9, 11)).choice.compiled is not engine


@pytest.mark.parametrize("engine", ["dense", "incremental"])
@pytest.mark.parametrize("how", ["in place", "by data", "another tensor"])
def test_a_network_that_was_changed_is_compiled_anew(objects, engine, how):
    model = load_model("small-cnn", model_args={"channels": "4-6", "canvas": 32, "hidden": 9})
    sweep = sweep_of(model, objects, engine)
    similarity(sweep)
    first = model.module.features[0]
    with torch.no_grad():
        if how == "in place":
            first.bias.add_(1)
        elif how == "by data":
            first.bias.data.add_(1)
        else:
            first.bias = torch.nn.Parameter(first.bias + 1)
    found = gather(sweep, {"pool2": FeatureReading()}, np.arange(12), [PLACES[1]], max_memory=2**28)
    expected = plain(model, objects, "pool2", PLACES[1])
    np.testing.assert_allclose(found["pool2"], expected, atol=1e-5 * abs(expected).max())
    moved = sweep.at(PLACES[2])
    found = gather(moved, {"pool2": FeatureReading()}, np.arange(12), [PLACES[2]], max_memory=2**28)
    expected = plain(model, objects, "pool2", PLACES[2])
    np.testing.assert_allclose(found["pool2"], expected, atol=1e-5 * abs(expected).max())


def test_arrays_hold_their_memory_and_report(objects):
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(12, 2, 3, 5000)).astype(np.float32) for name in "ab"}
    source = elsewhere.ArraySource(
        arrays, y=GRID.y, x=GRID.x, objects=objects.ids, categories=objects.categories
    )
    seen = []
    whole = similarity(source, progress=lambda done, of: seen.append((done, of)))
    assert seen[-1] == (144, 144)
    small = similarity(source, max_memory=200_000)  # of 300,000 that a layer takes
    np.testing.assert_allclose(small["G"], whole["G"], atol=1e-6)
    with pytest.raises(InputError, match="--max-memory"):
        similarity(source, max_memory=20_000)
    with pytest.raises(InputError, match="not among the locations"):
        source.at((5, 5))

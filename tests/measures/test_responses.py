"""Objects that a layer does not respond to, and those that it does not tell apart."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import elsewhere
from elsewhere.analyzer import aligned_similarity
from elsewhere.analyzer.attribution import AttributionSettings, attribute
from elsewhere.errors import LayerError
from elsewhere.measures.responses import UNSEEN, find_responses
from elsewhere.models import Model
from elsewhere.models.transform import InputTransform
from elsewhere.probes import fit_probe, probe
from elsewhere.recording import Sweep
from elsewhere.stimuli import Canvas, Grid, ObjectSet
from elsewhere.storage import ArraySource
from tests.counting import counting
from tests.roles import similarity

CANVAS = Canvas(24, 7, background=60)
GRID = Grid.parse("2x3", CANVAS)
NAMES = ("cosine", "evoked", "partition")


class Red(nn.Module):
    """Reads the red channel only; the second layer saturates for all that is dim."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 5, stride=2)
        self.gain = nn.Hardtanh(0.0, 0.3)
        self.head = nn.Linear(6 * 10 * 10, 12)
        self.conv.weight.data[:, 1:] = 0

    def forward(self, images):
        return self.head(self.gain(self.conv(images).relu()).flatten(1))


def objects_of(seen, unseen, seed=0):
    """Return objects that differ from the ground in all colours, and in green only."""
    rng = np.random.default_rng(seed)
    images = np.full((seen + unseen, 7, 7, 3), 60, np.uint8)
    images[:seen] = rng.integers(0, 255, (seen, 7, 7, 3))
    images[seen:, ..., 1] = rng.integers(0, 255, (unseen, 7, 7))
    ids = tuple(f"o{number}" for number in range(seen + unseen))
    masks = np.full(images.shape[:3], 255, np.uint8)
    return ObjectSet("mixed", images, masks, ids, ids)


def sweep_of(objects, engine="dense", layers="conv,head"):
    model = Model("red", Red().eval(), InputTransform(), {}, "none", "", canvas_size=24)
    return Sweep(model, objects, canvas=CANVAS, grid=GRID, layers=layers, engine=engine)


def codes_of(objects):
    """Return codes (object, place, unit) of the first layer, an image a pass, and the empty one."""
    net, background = Red().eval(), np.full((24, 24, 3), 60.0)
    scenes = [background]
    for image in objects.images:
        for y, x in GRID.locations:
            scene = background.copy()
            scene[y - 3 : y + 4, x - 3 : x + 4] = image
            scenes.append(scene)
    pixels = torch.from_numpy(np.stack(scenes).transpose(0, 3, 1, 2) / 255).float()
    with torch.no_grad():
        found = np.concatenate([net.conv(pixel[None]).flatten(1).numpy() for pixel in pixels])
    return found[1:].astype(float).reshape(len(objects), -1, found.shape[1]), found[0]


@pytest.mark.parametrize("engine", ["dense", "incremental"])
def test_objects_that_a_layer_does_not_respond_to_are_left_out_and_named(engine, tmp_path):
    objects = objects_of(seen=5, unseen=2)
    sweep = sweep_of(objects, engine)
    codes, empty = codes_of(objects)
    units = (codes - empty)[:5]
    units /= np.linalg.norm(units, axis=2, keepdims=True)
    reference = sweep.design.reference_index
    right = np.einsum("opu,ou->op", units, units[:, reference])
    elsewhere.record(sweep, tmp_path / "run.h5")
    with elsewhere.open(tmp_path / "run.h5") as recording:
        for source in (sweep, recording):
            found = similarity(source, metric="evoked")
            own = found["similarity"][0].values.reshape(7, -1)
            np.testing.assert_allclose(own[:5], right, atol=1e-5)
            assert np.isnan(own[5:]).all()
            away = np.delete(right, reference, axis=1).mean()
            assert float(found["similarity_away"][0]) == pytest.approx(away, abs=1e-5)
            assert "2 of 7 objects change nothing in conv, " in found.attrs["notes"][0]
            assert "o5, o6" in found.attrs["notes"][0]
            assert np.isfinite(found["G_away_band"]).all()
            measured = elsewhere.measure(source, names=NAMES)
            assert float(measured["evoked_away"][0]) == pytest.approx(
                float(elsewhere.measure(sweep_of(objects.subset(range(5))), names=NAMES)[
                    "evoked_away"
                ][0]),
                abs=1e-5,
            )  # fmt: skip
            assert any("o5, o6" in note for note in measured.attrs["notes"])


def test_aligned_maps_are_of_the_objects_that_a_layer_responds_to():
    objects = objects_of(seen=5, unseen=2)
    found = aligned_similarity(sweep_of(objects), layers=["conv"], shift="nearest")
    right = aligned_similarity(sweep_of(objects.subset(range(5))), layers=["conv"], shift="nearest")
    for name in ("aligned_away", "aligned_baseline_away", "aligned_G_away_interval"):
        np.testing.assert_allclose(found[name], right[name], atol=1e-6, err_msg=name)
    assert found["aligned_each"][0, 5:].isnull().all()
    assert any("are left out (nan): o5, o6" in note for note in found.attrs["notes"])
    unseen = aligned_similarity(sweep_of(objects.subset([5, 6])), layers=["conv"])
    assert unseen["aligned_away"].isnull().all()
    assert any("no object changes anything" in note for note in unseen.attrs["notes"])


def test_codes_of_zero_everywhere_are_no_response_whatever_is_removed():
    """A cosine of zero counts as 0: two silent objects of six took .33 off the similarity."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=(6, 1, 4, 30)) + 2 * rng.normal(size=(6, 1, 1, 30))
    values[[1, 4]] = 0
    kept = [0, 2, 3, 5]
    unit = values[kept, 0] / np.linalg.norm(values[kept, 0], axis=-1, keepdims=True)
    right = np.einsum("opu,ou->op", unit, unit[:, 0])[:, 1:].mean()
    for empty in ({}, {"empty": {"fc": rng.normal(size=30)}}):
        source = ArraySource({"fc": values}, y=[0], x=[0, 1, 2, 3], **empty)
        found = similarity(source)
        assert float(found["similarity_away"][0]) == pytest.approx(right, abs=1e-9)
        assert "2 of 6 objects change nothing in fc, " in found.attrs["notes"][0]
        measured = elsewhere.measure(source, names="sensitivity-cosine")
        assert "object1, object4" in measured.attrs["notes"][0]


def test_where_no_object_is_seen_nothing_is_measured():
    sweep = sweep_of(objects_of(seen=0, unseen=4))
    for found, name in (
        (similarity(sweep), "similarity"),
        (elsewhere.measure(sweep, names="cosine,aligned"), "cosine_away"),
    ):
        assert found[name].isnull().all()
        assert any("no object changes anything in conv" in note for note in found.attrs["notes"])
    read = probe(sweep, controls=())
    assert read["accuracy_at"].isnull().all()
    assert any("no object changes anything" in note for note in read.attrs["notes"])


def test_a_layer_may_respond_to_fewer_objects_than_the_one_before():
    """With the arrays of two layers, the second of which is saturated for two objects."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(6, 2, 3, 20)) + rng.normal(size=(6, 1, 1, 20))
    empty = rng.normal(size=20)
    later = values.copy()
    later[2:4] = empty
    source = ArraySource(
        {"one": values, "two": later}, y=[0, 1], x=[0, 1, 2], empty={"one": empty, "two": empty}
    )
    both = similarity(source)
    kept = [0, 1, 4, 5]
    alone = similarity(ArraySource({"two": later[kept]}, y=[0, 1], x=[0, 1, 2]))
    assert both["similarity"][0].notnull().all()
    for name in ("similarity_away", "G_away", "baseline_same_away", "G_away_interval"):
        np.testing.assert_allclose(both[name][1], alone[name][0], atol=1e-12)
    assert "2 of 6 objects change nothing in two, " in both.attrs["notes"][0]
    measured = elsewhere.measure(source, names="cosine,cka,identification")
    right = elsewhere.measure(ArraySource({"two": later[kept]}, y=[0, 1], x=[0, 1, 2]), names="cka")
    np.testing.assert_allclose(measured["cka_away"][1], right["cka_away"][0], atol=1e-12)


def test_objects_with_one_code_are_named():
    values = np.random.default_rng(0).normal(size=(5, 1, 3, 30))
    values[3] = values[1]
    found = similarity(ArraySource({"fc": values}, y=[0], x=[0, 1, 2]))
    (note,) = [note for note in found.attrs["notes"] if "the same code" in note]
    assert "2 of 5 objects with another one (object1 = object3): fc" in note
    values[3, 0, 0, 0] += 1e-3
    found = similarity(ArraySource({"fc": values}, y=[0], x=[0, 1, 2]))
    assert not any("the same code" in note for note in found.attrs["notes"])


def test_copies_are_named_once_for_all_layers_and_counted():
    rng = np.random.default_rng(0)
    layers = {}
    for name in ("one", "two", "three"):
        values = rng.normal(size=(12, 1, 3, 30)) * rng.uniform(0.5, 2, size=(12, 1, 1, 1))
        values[6:] = values[:6]
        layers[name] = values
    found = similarity(ArraySource(layers, y=[0], x=[0, 1, 2]))
    (note,) = [note for note in found.attrs["notes"] if "the same code" in note]
    assert "all 12 objects with another one (6 groups: object0 = object6; " in note
    assert "object4 = object10; ...): one, two, three; " in note


def test_measures_of_gram_matrices_say_nothing_of_empty_rests(recwarn):
    source = ArraySource(
        {"fc": np.random.default_rng(0).normal(size=(1, 1, 3, 9))}, y=[0], x=[0, 1, 2]
    )
    found = elsewhere.measure(source, names="cka-biased,cka,rsa,partition,cosine")
    assert np.isnan(found["cka_biased_away"]).all()
    assert np.isnan(found["object_share"]).all()
    for name in ("cka-biased", "partition"):
        assert any(note.startswith(f"{name}: layer fc: NaN, for") for note in found.attrs["notes"])
    assert not [str(each.message) for each in recwarn if each.category is RuntimeWarning]


@pytest.mark.parametrize("offset", [0.0, 1e6, 1e8])
@pytest.mark.parametrize("metric", ["evoked", "centred", "pearson"])
def test_double_precision_is_judged_by_its_own_rounding(metric, offset):
    """A common part that is larger by far leaves what is on it; single precision would lose it."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 1, 4, 40)) + rng.normal(size=(5, 1, 1, 40))

    def away(values, empty):
        source = ArraySource({"fc": values}, y=[0], x=[0, 1, 2, 3], empty={"fc": empty})
        found = similarity(source, metric=metric)
        measured = elsewhere.measure(source, names=metric)
        notes = [*found.attrs["notes"], *measured.attrs["notes"]]
        assert not any("dead" in note or "rounding" in note for note in notes)
        key = f"{metric}_away"
        return float(found["similarity_away"][0]), float(measured[key][0])

    plain = away(values, np.zeros(40))
    moved = away(values + offset, np.zeros(40) + offset)
    np.testing.assert_allclose(moved, plain, atol=1e-6)


def test_a_look_that_does_not_fit_the_memory_is_said():
    values = np.random.default_rng(0).normal(size=(4, 1, 3, 8))
    source = ArraySource({"fc": values}, y=[5], x=[1, 2, 3])
    found = find_responses(source, max_memory=64)  # it looked for parts without an end
    assert found.notes == [UNSEEN]
    assert not any(marks.any() for marks in found.silent.values())
    assert UNSEEN not in find_responses(source).notes


@pytest.mark.parametrize("kind", ["logistic", "nearest-centroid"])
def test_probes_leave_out_what_a_layer_does_not_respond_to(kind):
    """The same exemplar without a code was "recognised" everywhere, whatever the place does."""
    rng = np.random.default_rng(5)
    codes = np.repeat(rng.normal(size=(4, 1, 1, 12)), 4, axis=0)
    values = codes + rng.normal(size=(16, 1, 4, 12))
    empty, places = rng.normal(size=12), [0, 10, 20, 30]
    names, silent = [name for name in "abcd" for _ in range(4)], [1, 6, 12, 13, 14, 15]
    values[silent] = empty  # two exemplars, and a whole category
    kept = [number for number in range(16) if number not in silent]
    out = np.zeros(16, bool)
    out[[0, 4, 8, 15]] = True

    def arrays(values, names, **more):
        return ArraySource({"fc": values}, y=[0], x=places, categories=list(names), **more)

    def probed(values, names, held_out, **more):
        source = arrays(values, names, **more)
        return probe(source, kind=kind, held_out=held_out, n_folds=2, threshold=0.6)

    found = probed(values, names, out, empty={"fc": empty})
    right = probed(values[kept], [names[o] for o in kept], out[kept])
    for name in right.data_vars:
        if name not in ("choice", "correct"):
            answered = found[name].isel({"class": slice(3)} if "class" in found[name].dims else {})
            np.testing.assert_allclose(answered, right[name], atol=1e-9, err_msg=name)
    assert np.isnan(found["accuracy_at_class"][:, :, 3]).all()
    for name in ("choice", "correct"):
        np.testing.assert_array_equal(found[name][:, kept], right[name])
        assert (found[name][:, silent] == -1).all()
    text = "\n".join(found.attrs["notes"])
    assert "6 of 16 objects change nothing in fc, " in text
    assert "fc: it responds to objects of 3 of 4 categories, so that chance is 1/3" in text
    some = [names[o] for o in kept]
    readout = fit_probe(arrays(values, names, empty={"fc": empty}), "fc", kind=kind, held_out=out)
    alone = fit_probe(arrays(values[kept], some), "fc", kind=kind, held_out=out[kept])
    assert readout.classes == alone.classes == ("a", "b", "c")
    np.testing.assert_array_equal(readout.coef, alone.coef)
    assert any("6 of 16 objects change nothing" in note for note in readout.network["notes"])
    lone = values.copy()
    lone[4:] = empty
    with pytest.raises(LayerError, match="responds to objects of one category only"):
        fit_probe(arrays(lone, names, empty={"fc": empty}), "fc", kind=kind)
    unread = probed(lone, names, out, empty={"fc": empty})
    assert unread["accuracy_at"].isnull().all()
    assert "fc: it responds to objects of one category only" in unread.attrs["notes"]


@pytest.mark.parametrize(
    ("method", "target"), [("saliency", "logit:1"), ("occlusion", "similarity:head")]
)
def test_attribution_of_what_the_target_does_not_respond_to_has_no_map(method, target):
    """The slopes of an image that the network takes for the empty canvas are the background's.

    The network reads red less green, of which grey objects have what a grey ground has.
    """
    network = Red().eval()
    network.conv.weight.data[:, 1] = -network.conv.weight.data[:, 0]
    model = Model("opponent", network, InputTransform(), {}, "none", "", canvas_size=24)
    objects, settings = objects_of(seen=3, unseen=2), AttributionSettings(method, target)
    objects.images[3:] = objects.images[3:, ..., 1:2]
    found, right = (
        attribute(Sweep(model, some, canvas=CANVAS, grid=GRID), settings)
        for some in (objects, objects.subset(range(3)))
    )
    assert found["vanishing"][3:].all()
    np.testing.assert_array_equal(found["vanishing"][:3], right["vanishing"])
    for name in ("equivariance_away", "mass_inside_away", "centre_distance_away", "frame_mean"):
        np.testing.assert_allclose(found[name], right[name], atol=1e-5, err_msg=name)
    (note,) = [note for note in found.attrs["notes"] if "maps vanish" in note]
    assert "no map is left of o3, o4" in note


def probed_accuracy(values, labels):
    """Return accuracies at all places of nearest centroids of standardised units, by the book."""
    train = values[:, 0, 0]
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    z = (values[:, 0] - mean) / deviation
    centroids = np.stack([z[labels == each, 0].mean(axis=0) for each in range(4)])
    far = ((z[:, :, None] - centroids) ** 2).sum(axis=-1)
    return (far.argmin(axis=-1) == labels[:, None]).mean(axis=0)


@pytest.mark.parametrize(
    ("offset", "dtype", "lost"),
    [
        *((offset, "f8", False) for offset in (0, 1e6, 1e8)),
        *((0, "f4", False), (1e6, "f4", True), (1e8, "f4", True)),
        *((0, "f2", False), (200, "f2", True)),
    ],
)
def test_what_a_common_part_leaves_is_right_or_has_a_note(offset, dtype, lost):
    """Probes gathered float32, so that an offset of 1e8 left nothing of double precision."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(4), 4)
    values = np.repeat(rng.normal(size=(4, 1, 1, 30)), 4, axis=0)
    values = values + 1.5 * rng.normal(size=(16, 1, 4, 30))
    right = probed_accuracy(values, labels)
    source = ArraySource(
        {"fc": (values + offset).astype(dtype)},
        y=[0],
        x=[0, 10, 20, 30],
        categories=list(map(str, labels)),
    )
    read = probe(source, kind="nearest-centroid", split="same", controls=())
    for found in (
        read,
        similarity(source, metric="centred"),
        elsewhere.measure(source, names="cosine,rsa"),
    ):
        told = [note for note in found.attrs["notes"] if "what tells objects apart is" in note]
        assert len(told) == lost
    if not lost:
        np.testing.assert_allclose(read["accuracy"].values.ravel(), right, atol=1e-12)


def test_small_values_of_half_precision_have_a_note():
    values = np.random.default_rng(0).normal(size=(5, 1, 3, 40))
    for scale, lost in ((1.0, False), (1e-3, False), (1e-6, True)):
        source = ArraySource({"fc": (scale * values).astype("f2")}, y=[0], x=[0, 1, 2])
        notes = similarity(source).attrs["notes"]
        assert any("record with --dtype float32" in note for note in notes) == lost


def test_responses_of_a_device_are_those_of_the_cpu(make_sweep, model, make_objects, request):
    deaf = copy.deepcopy(model)
    first = next(part for part in deaf.module.modules() if isinstance(part, torch.nn.Conv2d))
    with torch.no_grad():
        first.weight[:, 0] = 0  # red is not read
    objects = make_objects(5)
    images, masks = objects.images.copy(), np.full_like(objects.masks, 255)
    images[3] = (90, 40, 90)  # differs from the background in red alone
    images[4] = images[1]
    objects = dataclasses.replace(objects, images=images, masks=masks)
    options = {"objects": objects, "layers": "relu1_1,pool2,logits", "grid": "2x3"}
    expected = find_responses(make_sweep(deaf, **options))
    assert any("change nothing" in note for note in expected.notes)
    assert any("the same code" in note for note in expected.notes)
    request.getfixturevalue("on_device")
    sweep = make_sweep(deaf, **options)
    find_responses(sweep)  # what is found out once
    with counting() as counted:
        found = find_responses(sweep)
    assert found.notes == expected.notes
    for name, marks in expected.silent.items():
        np.testing.assert_array_equal(found.silent[name], marks)
        np.testing.assert_array_equal(found.zero[name], expected.zero[name])
    ours = {line: n for line, n in counted.lines.items() if "measures/" in line}
    assert sum(ours.values()) <= 2 + len(sweep.layers), ours  # a sweep each, and a spread a layer

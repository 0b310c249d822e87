"""Objects that cannot be seen on their background, for every way in which they are shown."""

import logging

import numpy as np
import pytest

import elsewhere
from elsewhere.analyzer import network_accuracy as accuracy
from elsewhere.errors import ObjectSetError
from elsewhere.recording import Sweep, record
from elsewhere.stimuli import Canvas, Grid, ObjectSet, load_objects
from tests.roles import similarity

GROUND = (200, 40, 90)


def objects_of(*colors, size=8):
    """Discs of given colours on transparent ground."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    disc = (np.hypot(y, x) < size / 2 - 1).astype(np.uint8) * 255
    images = np.stack([np.broadcast_to(np.array(c, np.uint8), (size, size, 3)) for c in colors])
    ids = tuple(f"o{i}" for i in range(len(colors)))
    return ObjectSet("discs", images.copy(), np.stack([disc] * len(colors)), ids, ids)


def test_seen_is_a_level_on_a_pixel():
    objects = objects_of(GROUND, (201, 40, 90), (200, 40, 94), (0, 0, 0))
    found = objects.seen_on(GROUND)
    assert found.ids == ("o1", "o2", "o3")
    assert found.notes[0] == (
        "left out 1 of 4 objects, which cannot be seen on the background 200,40,90: o0"
    )
    assert "no more than 2 of 255 levels" in found.notes[1]
    assert found.notes[1].endswith(": o1")
    assert objects.notes == []
    every = objects.seen_on((1, 2, 3))
    assert every is objects


def test_alpha_that_rounds_to_nothing_is_unseen():
    objects = objects_of((0, 0, 0), (255, 255, 255))
    objects.masks[0] //= 128  # an alpha of 1 of 255 over a ground of 100
    assert objects.seen_on((100, 100, 100)).ids == ("o1",)


@pytest.mark.parametrize("engine", ["dense", "incremental"])
def test_sweeps_leave_them_out_of_means(engine, model, make_objects, tmp_path):
    canvas = Canvas(24, 8, background=GROUND)
    seen = make_objects(4)
    images = np.concatenate([seen.images, np.full((1, 8, 8, 3), GROUND, np.uint8)])
    masks = np.concatenate([seen.masks, np.full((1, 8, 8), 255, np.uint8)])
    both = ObjectSet("some", images, masks, (*seen.ids, "blank"), (*seen.categories, "blank"))
    made = {"canvas": canvas, "grid": Grid.parse("2x3", canvas), "layers": "fc3", "engine": engine}
    found, wanted = (similarity(Sweep(model, o, **made)) for o in (both, seen))
    np.testing.assert_allclose(found["similarity_away"], wanted["similarity_away"], atol=1e-7)
    np.testing.assert_allclose(found["G_away"], wanted["G_away"], atol=1e-7)
    assert any("left out 1 of 5 objects" in note and "blank" in note for note in found.notes)
    path = record(Sweep(model, both, **made), tmp_path / "run.h5")
    with elsewhere.open(path) as recording:
        assert "blank" not in recording.design.objects
        for result in (similarity(recording), elsewhere.measure(recording, names="cosine")):
            assert any("cannot be seen" in note for note in result.notes)
    assert any("cannot be seen" in note for note in Sweep(model, both, **made).using("dense").notes)


@pytest.mark.parametrize("background", ["mean", GROUND])
def test_where_none_is_seen_it_is_refused(background, model):
    canvas = Canvas(24, 8, background=background)
    color = canvas.background_color(model.transform.mean)
    with pytest.raises(ObjectSetError, match="no object of 'discs' can be seen .* --background"):
        Sweep(model, objects_of(color, color), canvas=canvas)
    with pytest.raises(ObjectSetError, match="no object of 'discs' can be seen"):
        accuracy(
            model, objects_of(color), canvas=canvas, grid=Grid.parse("1x2", canvas),
            trained=[(12, 12)], classes=[f"o{i}" for i in range(7)],
        )  # fmt: skip


def test_accuracy_leaves_them_out(model, caplog):
    canvas = Canvas(24, 8, background=GROUND)
    objects = objects_of((0, 255, 0), GROUND, (0, 0, 255))
    shown = {"canvas": canvas, "grid": Grid.parse("1x2", canvas), "trained": [(12, 12)]}
    shown["classes"] = [f"o{i}" for i in range(7)]
    with caplog.at_level(logging.WARNING):
        found = accuracy(model, objects, **shown)
    assert list(found["object"].values) == ["o0", "o2"]
    assert any("left out 1 of 3 objects" in note for note in found.notes)


def test_black_shapes_on_the_default_ground(model, tmp_path, write_picture):
    pixels = np.zeros((8, 8, 4), np.uint8)
    for i in range(3):
        pixels[i : 6 + i // 2, 1:7, 3] = 255
        write_picture(tmp_path / f"{i}.png", pixels)
    objects = load_objects(f"folder:{tmp_path}", size=8)
    with pytest.raises(ObjectSetError, match=r"on the background 0,0,0 \(0.png, 1.png, 2.png\)"):
        Sweep(model, objects, canvas=Canvas(24, 8))
    assert Sweep(model, objects, canvas=Canvas(24, 8, background=128)).notes == []

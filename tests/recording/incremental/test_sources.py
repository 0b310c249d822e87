"""Rectangles of one image put into another: every pair of stretches against a whole pass."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from elsewhere.models import Layer
from elsewhere.recording.incremental import Covered, Incremental, Pasted, Tile, WindowRows
from elsewhere.recording.incremental.sources import constant_runs
from elsewhere.recording.incremental.windows import Maps
from elsewhere.stimuli import Canvas

SIZE = 22


def activations(model, image, cover, rows, columns, tiles=1):
    """Return the network's output for every pair of stretches, by the engine, and the engine."""
    engine = Incremental(model, Covered(image, cover, rows, columns))
    shape = tuple(engine._empty[engine._program.outputs["", 0].name].shape[1:])
    layer = Layer("output", "", "output", shape, layout=())
    found = torch.full((len(rows), len(columns), *shape), torch.nan)
    for ys in np.array_split(np.arange(len(rows)), min(tiles, len(rows))):
        tile = Tile(ys, np.arange(len(columns)), np.zeros(1, dtype=np.int64))

        def receive(name, value, tile=tile):
            if isinstance(value, Maps):
                source = WindowRows(value, engine.ground(name), tile)
                value = source.full(np.arange(tile.n_rows))
            found[tile.ys] = value.reshape(len(tile.ys), len(tile.xs), *shape).clone()

        for _ in engine.run(tile, [layer], receive):
            pass
    return found, engine, layer


def whole_passes(network, image, cover, rows, columns):
    found = []
    for top, bottom in rows:
        for left, right in columns:
            covered = image.clone()
            covered[..., top:bottom, left:right] = cover[..., top:bottom, left:right]
            found.append(network(covered)[0])
    return torch.stack(found).unflatten(0, (len(rows), len(columns)))


@st.composite
def scenes(draw):
    """Return an image, a cover and stretches; both images are plain in stretches that differ."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    image = torch.randn(1, 3, 1, 1, generator=generator).repeat(1, 1, SIZE, SIZE)
    cover = torch.randn(1, 3, 1, 1, generator=generator).repeat(1, 1, SIZE, SIZE)
    if draw(st.integers(0, 3)) == 0:
        cover = torch.randn(1, 3, SIZE, SIZE, generator=generator)
    for target, share in ((image, 1), (cover, 3)):
        if draw(st.integers(0, share)) == 0:
            top, left = draw(st.integers(0, 14)), draw(st.integers(0, 14))
            target[..., top : top + 6, left : left + 8] = torch.randn(
                1, 3, 6, 8, generator=generator
            )
    stretches = st.lists(
        st.tuples(st.integers(0, SIZE - 1), st.sampled_from([2, 2, 3])).map(
            lambda pair: (pair[0], min(sum(pair), SIZE))
        ),
        min_size=1, max_size=6, unique=True,
    )  # fmt: skip
    return image, cover, draw(stretches), draw(stretches)


@st.composite
def networks(draw):
    """Return a chain that mixes kernels of one row, of one column and of one cell with others."""
    parts, channels = [], 3
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["conv", "conv", "max", "mean", "relu"]))
        kernel = draw(st.sampled_from([(1, 3), (3, 1), (1, 1), (3, 3), (2, 4)]))
        if kind == "conv":
            padding, stride = draw(st.integers(0, 2)), draw(st.integers(1, 2))
            parts.append(nn.Conv2d(channels, 4, kernel, padding=padding, stride=stride))
            channels = 4
        elif kind == "max":
            parts.append(nn.MaxPool2d(3, stride=draw(st.integers(1, 2)), padding=1))
        elif kind == "mean":
            parts.append(nn.AvgPool2d(2, stride=draw(st.integers(1, 2)), padding=1))
        else:
            parts.append(nn.ReLU(inplace=True))
    return nn.Sequential(*parts)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenes(), networks(), st.integers(1, 3))
def test_any_rectangle_in_any_image(wrap, disturb, scene, network, tiles):
    model = wrap(disturb(network), canvas_size=SIZE)
    with torch.no_grad():
        found, _, _ = activations(model, *scene, tiles=tiles)
        expected = whole_passes(network, *scene)
    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= 1e-5 * scale


def test_rectangles_share_windows_only_where_nothing_varies(wrap, disturb):
    network = disturb(nn.Sequential(nn.Conv2d(3, 2, 3, padding=1)))
    image, cover = torch.zeros(1, 3, SIZE, SIZE), torch.ones(1, 3, SIZE, SIZE)
    image[..., 2:5, :] = 3
    rows = [(first, first + 2) for first in (0, 2, 4, 6, 10, 14)]
    source = Covered(image, cover, rows, rows)
    # below the bar nothing varies along y; along x nothing does anywhere
    assert source.axes[0].classes.tolist() == [0, 1, 2, 3, 3, 3]
    assert source.axes[1].classes.tolist() == [0] * 6
    engine = Incremental(wrap(network, canvas_size=SIZE), source)
    after = engine.steps["_0"].axes
    assert after[0].classes.tolist() == [0, 1, 2, 3, 4, 4]  # what is read touches the bar
    assert after[1].classes.tolist() == [0, 1, 1, 1, 1, 1]
    with torch.no_grad():
        model = wrap(network, canvas_size=SIZE)
        found, _, _ = activations(model, image, cover, rows, rows)
        expected = whole_passes(network, image, cover, rows, rows)
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    cover[..., 9, :] = 2  # now the covers differ
    varied = Covered(image, cover, rows, rows).axes[0].classes.tolist()
    assert len(set(varied)) == 5


@pytest.mark.parametrize(
    ("values", "expected"), [([1, 1, 2, 2, 2, 1], (2, 5)), ([1], (0, 1)), ([1, 2, 3], (0, 1))]
)
def test_the_longest_constant_run(values, expected):
    values = torch.tensor(values, dtype=torch.float32)
    down = values[None, None, :, None].expand(1, 2, -1, 3)
    both = torch.cat([down, torch.zeros_like(down)])
    first, second = constant_runs(both, torch.zeros_like(both))
    assert first[0] == (expected, expected)
    assert second[0] == ((0, len(values)),) * 2
    assert constant_runs(both, both.flip(0))[1][0] == ((0, len(values)), expected)
    assert constant_runs(both.mT, torch.zeros_like(both.mT))[0][1] == (expected, expected)


def test_part_of_a_program_is_compiled_again(model, make_objects):
    """What leads to an early layer is all that runs on the next image."""
    canvas = Canvas(24, 8, background=(200, 40, 90))
    objects = make_objects(2)
    patches = model.transform.apply(torch.from_numpy(objects.patches((200, 40, 90))))
    source = Pasted(model, canvas, (200, 40, 90), [5, 9], [5, 12], patches)
    image = model.transform.apply(torch.from_numpy(canvas.empty((10, 20, 30))[None]))
    with torch.no_grad():
        engine = Incremental(model, source)
        first = next(name for name, one in engine.steps.items() if one.cost.weights)
        shape = tuple(engine._empty[first].shape[1:])
        module = next(
            name
            for name, part in model.module.named_modules()
            if part is engine.steps[first].step.module
        )
        layer = Layer("first", module, "Conv2d", shape, layout=())
        part = Incremental(
            model,
            Covered(image, source.ground, [(3, 6)], [(0, 4)]),
            program=engine.program([layer]),
        )
        assert set(part.steps) < set(engine.steps)
        assert part.source_of(layer) == engine.source_of(layer) == first
        expected = model.module.get_submodule(module)(image)
        torch.testing.assert_close(part.ground(first).maps, expected)

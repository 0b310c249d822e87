import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.axes import Axes
from elsewhere.protocols import Design
from elsewhere.storage import Portions
from elsewhere.storage.portions import CHUNK_BYTES, PORTION_BYTES, PORTION_ROWS
from elsewhere.types import BATCH_ROWS


@st.composite
def designs(draw):
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    n = draw(st.integers(1, 150))
    axes = Axes.of(**{f"axis{i}": range(size) for i, size in enumerate(sizes)})
    names = tuple(map(str, range(n)))
    return Design(names, names, axes, (0,) * len(sizes))


@settings(max_examples=60, deadline=None)
@given(designs(), st.sampled_from([0, 100, 10**6, 10**8, 10**10]))
def test_every_image_lies_in_exactly_one_unit(design, bytes_per_image):
    portions = Portions.cut(design, bytes_per_image=bytes_per_image)
    seen = np.zeros((len(design.objects), design.n_positions), dtype=int)
    count = 0
    for number, portion in enumerate(portions):
        assert portion.number == number
        count += 1
        objects, positions = portion.rows(design)
        assert len(objects) == math.prod(portion.shape)
        assert (portions.locate(objects, positions) == number).all()
        np.add.at(seen, (objects, positions), 1)
        inside = np.zeros((len(design.objects), *design.shape), dtype=bool)
        inside[portion.slices] = True
        inside = inside.reshape(seen.shape)
        assert inside[objects, positions].all()
        assert inside.sum() == len(objects)
    assert count == len(portions)
    assert (seen == 1).all()


@settings(max_examples=60, deadline=None)
@given(designs(), st.sampled_from([0, 100, 10**6, 10**8, 10**10]))
def test_a_unit_is_about_64_images_and_bounded_in_bytes(design, bytes_per_image):
    portions = Portions.cut(design, bytes_per_image=bytes_per_image)
    rows = max(math.prod(portion.shape) for portion in portions)
    assert rows <= PORTION_ROWS
    assert rows <= BATCH_ROWS or rows * bytes_per_image <= PORTION_BYTES


@settings(max_examples=100, deadline=None)
@given(
    designs(),
    st.one_of(
        st.tuples(st.integers(1, 10**6)),
        st.tuples(st.integers(1, 300), st.integers(1, 300), st.integers(1, 300)),
        st.tuples(st.integers(1, 50), st.integers(1, 2_000)),
    ),
    st.sampled_from([2, 4]),
)
def test_chunks_divide_units_and_stay_near_a_mebibyte(design, shape, itemsize):
    portions = Portions.cut(design, bytes_per_image=math.prod(shape) * itemsize)
    chunk = portions.chunk(shape, itemsize)
    n_axes = len(design.shape)
    assert len(chunk) == 1 + n_axes + len(shape)
    assert min(chunk) >= 1
    plane = math.prod(shape[1:]) * itemsize
    assert math.prod(chunk) * itemsize <= max(CHUNK_BYTES, plane)
    for portion in portions:  # chunks start where portions start, and none lies in two
        for start, step in zip(portion.start, chunk, strict=False):
            assert start % step == 0
        full = (len(design.objects), *design.shape)
        for stop, step, size in zip((s.stop for s in portion.slices), chunk, full, strict=False):
            assert stop % step == 0 or stop == size
    assert chunk[1 + n_axes + 1 :] == shape[1:]  # only the first dimension is ever cut


def test_small_layers_are_chunked_by_objects_and_positions_both():
    names = tuple(map(str, range(8)))
    design = Design(names, names, Axes.of(y=range(5), x=range(16)), (0, 0))
    objects, y, x, units = Portions.cut(design).chunk((4_096,), 4)
    assert y == 1
    assert units == 4_096
    assert objects * x == 64
    assert min(objects, x) == 8

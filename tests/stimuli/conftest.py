import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from elsewhere.errors import ObjectSetError
from elsewhere.stimuli import hangul


@pytest.fixture
def korean_font():
    """The font with Korean glyphs that this machine has; where there is none, the test skips."""
    try:
        return hangul.system_font()
    except ObjectSetError as error:
        pytest.skip(str(error))


def idx_bytes(array):
    array = np.asarray(array, np.uint8)
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


@pytest.fixture
def write_collection():
    """Write the two files of an idx data set: pictures (n, h, w) and labels (n,)."""

    def write(folder, pictures, labels, stem="t10k", *, compress=False, dot=False):
        folder.mkdir(parents=True, exist_ok=True)
        for kind, array in (("images-idx3", pictures), ("labels-idx1", labels)):
            name = f"{stem}-{kind}-ubyte"
            name = name.replace("-idx", ".idx") if dot else name
            data = idx_bytes(array)
            if compress:
                (folder / f"{name}.gz").write_bytes(gzip.compress(data))
            else:
                (folder / name).write_bytes(data)
        return folder

    return write


@pytest.fixture
def strokes():
    """Pictures of a bar whose place and side tell the label: 47 labels, 3 of each."""
    labels = np.arange(47).repeat(3)
    pictures = np.zeros((len(labels), 28, 28), np.uint8)
    for n, label in enumerate(labels):
        pictures[n, 2 + label // 2, 4 : 14 + n % 3] = 255  # lies left, in a row by label
    return pictures, labels


@pytest.fixture
def write_picture():
    def write(path, pixels):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
        return path

    return write

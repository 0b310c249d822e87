"""A small file of every released version of the format is kept, and opened for ever."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from elsewhere.analyzer import similarity
from elsewhere.storage import open_recording, verify
from elsewhere.storage.opening import READERS
from elsewhere.storage.schema import VERSION

DATA = Path(__file__).parents[1] / "data"
FILES = sorted(DATA.glob("recording-*.h5"))


def digest(values):
    if values.dtype.kind in "OUT":
        data = json.dumps(values.tolist()).encode()
    else:
        data = np.ascontiguousarray(values).tobytes()
    return {"shape": list(values.shape), "sha256": hashlib.sha256(data).hexdigest()}


def test_every_version_has_a_reader_and_a_file():
    assert [path.stem.removeprefix("recording-") for path in FILES] == list(READERS)
    assert list(READERS)[-1] == VERSION
    assert all(path.stat().st_size < 100_000 for path in FILES)


@pytest.mark.parametrize("path", [*FILES, DATA / "half-0.2.h5"], ids=lambda path: path.stem)
def test_what_was_written_is_read(path):
    expected = json.loads(path.with_suffix(".json").read_text())
    version = path.stem.partition("-")[2]
    with open_recording(path) as recording:
        assert recording.attributes["encoding_version"] == version
        assert list(recording) == ["conv1_1", "relu1_1", "pool2", "logits"]
        assert digest(np.array(recording.design.objects, dtype=object)) == expected["object"]
        assert digest(np.array(recording.design.categories, dtype=object)) == expected["category"]
        for axis in recording.design.axes:
            assert digest(np.array(axis.values)) == expected[axis.name]
        for name in recording:
            activation = recording[name].values
            assert digest(activation) == expected[f"layers/{name}/activation"]
            group = recording.tree[f"layers/{name}"]
            for small in ("empty", "reference"):
                assert digest(group[small].values) == expected[f"layers/{name}/{small}"]
        assert digest(recording.objects["image"].values) == expected["image"]
        assert digest(recording.objects["mask"].values) == expected["mask"]
        assert recording.design.reference == (10, 9)
        assert str(recording.layer("conv1_1").keep) == "sketch:32"
        assert recording.attributes["background"] == [90, 120, 30]
        result = similarity(recording, metric="evoked")
        assert np.isfinite(result["evoked_each"].values).all()
    assert verify(path).ok

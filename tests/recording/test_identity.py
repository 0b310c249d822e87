"""Whatever determines the values tells one recording from another; nothing else does."""

import dataclasses

import numpy as np
import pytest
import torch

from elsewhere.errors import ExistsError
from elsewhere.models import InputTransform
from elsewhere.recording import is_complete, make_header, record
from elsewhere.stimuli import Canvas, Grid
from elsewhere.storage import Keep


def note(images):
    return lambda done, total: images.append(done)


def test_the_same_again_is_complete_and_left_as_it_is(make_sweep, tmp_path, model):
    path = tmp_path / "run.h5"
    record(make_sweep(layers="logits"), path, command="one")
    before, time = path.read_bytes(), path.stat().st_mtime_ns
    renamed = dataclasses.replace(model, name="other", weights="elsewhere.pth")
    for network in (model, renamed):  # names of files and of models determine nothing
        images: list[int] = []
        record(make_sweep(network, layers="logits"), path, progress=note(images))
        assert images == []
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, time)
    assert is_complete(path, make_header(make_sweep(layers="logits")))
    assert not is_complete(tmp_path / "none.h5", make_header(make_sweep(layers="logits")))


def changes(model, make_objects):
    """Yield what is changed, the arguments that do it, and the field that must be named."""
    import copy

    other_state = dataclasses.replace(model, module=copy.deepcopy(model.module))
    with torch.no_grad():
        next(other_state.module.parameters()).data[0] += 1e-6
    restructured = dataclasses.replace(model, module=copy.deepcopy(model.module))
    restructured.module.features.add_module("extra", torch.nn.Identity())
    settings = dataclasses.replace(model, module=copy.deepcopy(model.module))
    settings.module.temperature = 2.0
    gain = dataclasses.replace(
        model, transform=InputTransform((0.4, 0.5, 0.3), (0.2, 0.3, 0.25), 1.6)
    )
    pixels = make_objects(5)
    images = pixels.images.copy()
    images[0, 0, 0, 0] ^= 1
    renamed = dataclasses.replace(pixels, ids=("x-0", *pixels.ids[1:]))
    yield {"network": other_state}, {}, "state"
    yield {"network": restructured}, {}, "architecture"
    yield {"network": settings}, {}, "settings"
    yield {"network": gain}, {}, "input.gain"
    yield {"objects": dataclasses.replace(pixels, images=images)}, {}, "pixels"
    yield {"objects": renamed}, {}, "objects"
    yield {"background": (200, 40, 91)}, {}, "canvas.background"
    yield {"grid": "3x3"}, {}, "axes"
    yield {"reference": (12, 12)}, {}, "reference"
    yield {"layers": "logits,fc3"}, {}, "layers"
    yield {}, {"dtype": "float16"}, "dtype"
    yield {}, {"keep": {"logits": Keep("sketch", 4)}}, "layers"


def test_every_field_is_named(make_sweep, tmp_path, model, make_objects):
    path, layers = tmp_path / "run.h5", {"layers": "logits"}
    record(make_sweep(objects=make_objects(5), **layers), path)
    before = path.read_bytes()
    for arguments, options, field in changes(model, make_objects):
        arguments = {"objects": make_objects(5)} | layers | arguments
        with pytest.raises(ExistsError, match=rf"differs in ([\w., ]*, )?{field}[,)]") as caught:
            record(make_sweep(**arguments), path, **options)
        assert "exists already" in str(caught.value)
        assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.h5"]


def test_sketches_of_another_seed_are_another_recording(make_sweep, tmp_path):
    sweep, path, keep = make_sweep(layers="logits"), tmp_path / "run.h5", {"*": Keep("sketch", 4)}
    record(sweep, path, keep=keep, seed=1)
    with pytest.raises(ExistsError, match=r"differs in layers\)"):
        record(sweep, path, keep=keep, seed=2)
    record(sweep, tmp_path / "full.h5", seed=1)
    record(sweep, tmp_path / "full.h5", seed=2)  # without a sketch nothing depends on it


def test_canvas_and_size_of_objects_count(make_sweep, make_objects, model, tmp_path):
    one = make_header(make_sweep()).identity_fields()["canvas"]
    assert one == {"size": 24, "object_size": 8, "background": [200, 40, 90]}
    from elsewhere.recording import Sweep

    canvas = Canvas(24, 6)
    other = Sweep(model, make_objects(size=6), canvas=canvas, grid=Grid.parse("3x4", canvas))
    assert make_header(other).identity_fields()["canvas"]["object_size"] == 6


def test_a_state_that_changed_after_loading_counts(make_sweep, model, tmp_path):
    import copy

    loaded = dataclasses.replace(model, module=copy.deepcopy(model.module))
    path = record(make_sweep(loaded, layers="logits"), tmp_path / "run.h5")
    with torch.no_grad():
        for parameter in loaded.module.parameters():
            parameter.data.mul_(1.5)  # torch's own version counters do not see this
    with pytest.raises(ExistsError, match=r"differs in state\)"):
        record(make_sweep(loaded, layers="logits"), path)


def test_numerics_must_be_equal_to_go_on(make_sweep, tmp_path, monkeypatch):
    def interrupt(done, total):
        if done > 300:
            raise KeyboardInterrupt

    sweep, path = make_sweep(grid="12x12", layers="logits"), tmp_path / "run.h5"
    with pytest.raises(KeyboardInterrupt):
        record(sweep, path, progress=interrupt)
    numerics = sweep.numerics
    monkeypatch.setattr(type(sweep), "numerics", property(lambda _: numerics | {"threads": 99}))
    says = rf"other numerics \(threads {numerics['threads']} then, 99 now\).*--threads"
    with pytest.raises(ExistsError, match=says):
        record(sweep, path)
    monkeypatch.undo()
    whole = record(sweep, path)
    monkeypatch.setattr(type(sweep), "numerics", property(lambda _: numerics | {"threads": 99}))
    record(sweep, whole)  # complete is complete: across numerics values agree within 1e-5


def test_a_file_of_another_kind_is_not_complete(make_sweep, tmp_path):
    path = tmp_path / "run.h5"
    path.write_text("mine")
    with pytest.raises(ExistsError, match=r"exists already and is no whole recording .*overwrite"):
        record(make_sweep(), path)
    assert path.read_text() == "mine"
    record(make_sweep(layers="logits"), path, overwrite=True)
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    with pytest.raises(ExistsError, match="its seal is damaged"):
        record(make_sweep(layers="logits"), path)
    assert np.frombuffer(path.read_bytes(), np.uint8).tolist() == list(data)

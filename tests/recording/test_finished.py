"""A run that is killed when its file is finished leaves nothing that the next does not remove."""

import pytest

from elsewhere.recording import record
from elsewhere.storage import open_recording


def test_a_run_that_is_killed_after_its_file_got_its_name(make_sweep, tmp_path, monkeypatch):
    """The parts that it leaves are removed by the next run, which answers that all is done."""
    sweep, path = make_sweep(layers="logits"), tmp_path / "run.h5"

    class Killed(BaseException):
        pass

    def killed(self):
        raise Killed

    monkeypatch.setattr("elsewhere.storage.parts.Parts.discard", killed)
    with pytest.raises(Killed):
        record(sweep, path)
    monkeypatch.undo()
    assert (tmp_path / "run.h5.parts").is_dir()
    with open_recording(path) as recording:
        assert list(recording) == ["logits"]
    (tmp_path / ".elsewhere-0123456789abcdef.tmp").write_bytes(b"of a dead process")
    before = path.read_bytes()
    record(sweep, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.h5"]

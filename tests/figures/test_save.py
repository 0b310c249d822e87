from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from matplotlib.figure import Figure

from elsewhere.errors import ExistsError, InputError, StorageError
from elsewhere.figures import (
    FIGURE_EXTENSIONS,
    plot_displacement,
    plot_layerwise,
    plot_objects,
    plot_similarity_maps,
    save_figure,
)

KILLED = """
import os, signal, sys
from matplotlib.figure import Figure
from elsewhere.figures import save_figure
os.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
save_figure(Figure(), sys.argv[1])
"""
STARTS = {".svg": b"<?xml", ".pdf": b"%PDF", ".png": b"\x89PNG"}


@pytest.mark.parametrize("extension", FIGURE_EXTENSIONS)
def test_each_format_is_written_alone_and_the_same_each_time(result, tmp_path, extension):
    paths = [tmp_path / f"{name}{extension}" for name in "ab"]
    for path in paths:
        assert save_figure(plot_similarity_maps(result), path) == path
    first, second = (path.read_bytes() for path in paths)
    assert first.startswith(STARTS[extension])
    assert first == second
    assert sorted(tmp_path.iterdir()) == paths


@pytest.mark.parametrize("name", ["layerwise", "displacement", "objects"])
def test_svg_has_no_date_and_the_same_bytes(result, make_objects, tmp_path, name):
    def make():
        if name == "objects":
            return plot_objects(make_objects(tuple("abcabc")))
        return {"layerwise": plot_layerwise, "displacement": plot_displacement}[name](result).figure

    first = save_figure(make(), tmp_path / "a.svg").read_text()
    second = save_figure(make(), tmp_path / "b.svg").read_text()
    assert first == second
    assert not re.search(r"dc:date|20\d\d-\d\d-\d\d", first)


def test_a_capital_extension_is_understood(tmp_path):
    assert save_figure(Figure(), tmp_path / "a.PNG").read_bytes().startswith(STARTS[".png"])


def test_dpi_sets_the_size_of_a_png(tmp_path):
    figure = Figure(figsize=(2, 1))
    save_figure(figure, tmp_path / "a.png", dpi=50)
    header = (tmp_path / "a.png").read_bytes()[16:24]
    assert (int.from_bytes(header[:4]), int.from_bytes(header[4:])) == (100, 50)


def test_an_existing_file_is_kept_unless_overwritten(tmp_path):
    path = tmp_path / "a.svg"
    path.write_text("mine")
    with pytest.raises(ExistsError, match="exists already"):
        save_figure(Figure(), path)
    assert path.read_text() == "mine"
    save_figure(Figure(), path, overwrite=True)
    assert path.read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize("name", ["a.gif", "a", "a.svg.zip"])
def test_an_unknown_extension_lists_the_known_ones(tmp_path, name):
    with pytest.raises(InputError, match=r"\.pdf, \.png, \.svg"):
        save_figure(Figure(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(StorageError, match="cannot write"):
        save_figure(Figure(), tmp_path / "missing" / "a.svg")
    (tmp_path / "old.svg").write_text("mine")

    def refuse(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match="No space left"):
        save_figure(Figure(), tmp_path / "old.svg", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["old.svg"]
    assert (tmp_path / "old.svg").read_text() == "mine"


def test_other_arguments_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="dpi is 0"):
        save_figure(Figure(), tmp_path / "a.png", dpi=0)
    with pytest.raises(InputError, match=r"pass ax\.figure"):
        save_figure(Figure().add_subplot(), tmp_path / "a.png")  # type: ignore[arg-type]


def test_what_a_killed_process_left_is_removed_by_the_next_command(tmp_path):
    from elsewhere.storage.files import check_output

    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "a.png"], check=False)
    assert done.returncode < 0
    (left,) = tmp_path.iterdir()
    assert left.stat().st_size > 0
    check_output(tmp_path / "b.nc")
    assert not list(tmp_path.iterdir())

"""The paper's figures, from the files that a reproduction leaves."""

import subprocess
import sys
from pathlib import Path

import pytest

from elsewhere.errors import InputError
from elsewhere.reproduction import draw_paper
from elsewhere.storage import save_result
from tests.figures.conftest import accuracy_result, similarity_result
from tests.figures.test_page import check, texts_of


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Return a directory in which two seeds left results, the first of them all."""
    place = tmp_path_factory.mktemp("reproduced")
    for seed in (7, 8):
        folder = place / "seeds" / str(seed)
        folder.mkdir(parents=True)
        for run in ("vanilla", "fixed-learning", "acquired", "equal-accuracy"):
            for phase in ("glyphs", "digits"):
                each = accuracy_result().assign_attrs(run=run, phase=phase, seed=seed)
                save_result(each, folder / f"{run}-{phase}-accuracy.nc")
    for run in ("vanilla", "acquired"):
        for objects in ("glyphs", "novel"):
            each = similarity_result().assign_attrs(run=run, seed=7)
            save_result(each, place / "seeds" / "7" / f"{run}-{objects}-similarity.nc")
    return place


def said(figure):
    return " ".join(text for text, _ in texts_of(figure)).replace("\n", " ")


@pytest.mark.parametrize("page", [{}, {"width": "85mm"}, {"style": "slides"}])
def test_conditions_and_layers_stand_in_one_figure(directory, page):
    figure = draw_paper(directory, **page)
    check(figure, str(page))
    shown = said(figure)
    for phase in ("glyphs", "digits"):
        assert {f"{name}, {phase}" in shown for name in ("vanilla", "fixed", "acquired")} == {True}
    assert "equal" not in shown
    assert "same exemplars" in shown
    assert shown.count("seed 7") == 3
    assert "new objects, glyphs" in shown
    assert "new objects, novel" in shown
    assert [text.get_text() for text in figure.texts] == ["a", "b", "c"]


def test_another_seed_and_some_layers(directory):
    figure = draw_paper(directory, seed=8)
    assert "seed 8" in said(figure)
    assert "cosine similarity" not in said(figure)  # that seed has none
    assert "pool5" not in said(draw_paper(directory, layers=["conv1_1", "fc7"]))
    with pytest.raises(InputError, match=r"no results of seed 9; it has: 7, 8"):
        draw_paper(directory, seed=9)


def test_what_is_no_reproduction_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no results of a reproduction"):
        draw_paper(tmp_path)
    folder = tmp_path / "seeds" / "1"
    folder.mkdir(parents=True)
    save_result(accuracy_result(), folder / "other.nc")
    with pytest.raises(InputError, match="neither maps of accuracy nor similarities"):
        draw_paper(tmp_path)


def test_it_needs_no_torch(directory, tmp_path):
    code = (
        "import sys; from elsewhere.cli import main; "
        f"sys.argv = ['elsewhere', 'figure', '--paper', {str(directory)!r}, '--out', 'a.svg']\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": root},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "wrote a.svg (178 x" in done.stderr
    assert (tmp_path / "a.svg").stat().st_size > 1000

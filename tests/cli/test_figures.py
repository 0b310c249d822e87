"""Figures of several results and kinds, for papers and slides, from the command line."""

import numpy as np
import pytest
from PIL import Image

from elsewhere.storage import save_result
from tests.figures.conftest import accuracy_result, similarity_result


@pytest.fixture
def results(here):
    """Return the names of a similarity, another one, and a result of accuracy."""
    notes = ["layer 'pool5': few units", "fc7 (mean): by construction", "few objects"]
    for name, run in (("before.nc", "vanilla"), ("after.nc", "acquired")):
        save_result(similarity_result().assign_attrs(run=run, notes=notes), here / name)
    save_result(accuracy_result(), here / "acc.nc")
    return "before.nc", "after.nc", "acc.nc"


def test_panels_for_paper_and_slides(run, results):
    before, _, accuracy = results
    told = run("figure", before, "--kinds", "maps,layerwise", "--out", "a.png", "--dpi", 50).err
    assert "wrote a.png (178 x" in told
    told = run(
        "figure", before, accuracy, "--style", "slides", "--title", "Both", "--height", "143mm",
        "--out", "b.svg",
    ).err  # fmt: skip
    assert "wrote b.svg (254 x 143 mm)" in told
    with open("b.svg", encoding="utf-8") as file:
        text = file.read()
    assert ">Both<" in text
    assert "accuracy, held-out" in text
    assert np.asarray(Image.open("a.png").convert("L")).std() > 5


def test_two_results_before_and_after(run, results):
    before, after, _ = results
    run("figure", before, after, "--kind", "change", "--names", "young,old", "--out", "a.svg")
    with open("a.svg", encoding="utf-8") as file:
        text = file.read()
    assert "young and old" in text
    run("figure", before, after, "--kind", "layerwise", "--out", "b.svg")


def test_only_notes_of_what_is_drawn_are_printed(run, results):
    everything = run("figure", results[0], "--out", "a.svg").err
    assert everything.count("note: ") == 3
    some = run("figure", results[0], "--layers", "conv1_1,fc7", "--out", "b.svg").err
    assert "pool5" not in some
    assert "fc7 (mean): by construction" in some
    assert "few objects" in some


def test_a_figure_that_is_taller_than_a_page_says_so(run, here):
    save_result(similarity_result([f"layer{k}" for k in range(40)]), here / "deep.nc")
    told = run("figure", "deep.nc", "--kind", "maps", "--width", "60mm", "--out", "a.png").err
    assert "mm tall, and a printed page has 240 mm; choose --layers" in told
    told = run("figure", "deep.nc", "--out", "b.png").err
    assert "printed page" not in told


def test_what_excludes_each_other_is_refused(refuse, results):
    before = results[0]
    refuse("figure", "--out", "a.svg", says=("missing RESULT or --paper", "directory"))
    refuse("figure", before, "--style", "poster", "--out", "a.svg", says="style 'poster'")
    refuse("figure", before, "--columns", "0", "--out", "a.svg", says="at least 1")
    refuse("figure", before, "--title", "a", "--no-title", "--out", "a.svg", says="--no-title")
    refuse("figure", before, "--seed", "1", "--out", "a.svg", says="--paper")
    refuse("figure", before, "--paper", ".", "--out", "a.svg", says="leave RESULT")
    refuse("figure", "--paper", ".", "--out", "a.svg", says="no results of a reproduction")
    refuse("figure", before, "--kind", "change", "--out", "a.svg", says="before and after; got 1")
    refuse("figure", before, "--kinds", "maps,claims", "--out", "a.svg", says="can be drawn")

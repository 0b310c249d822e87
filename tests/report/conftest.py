"""Directories of results, real and made by hand, and a real browser to open reports in."""

import shutil

import numpy as np
import pytest
import xarray

import elsewhere
from elsewhere.analyzer import similarity
from elsewhere.measures.variables import described
from elsewhere.report import write_report
from elsewhere.storage import ArraySource, save_result
from tests.figures.conftest import claims_result

PLACES = {"y": [8, 18, 28, 40], "x": [8, 24, 40]}
LAYERS = ("conv1", "fc6", "fc7")


def codes(invariant, draw=0):
    """Return codes of 5 objects in each layer: a part of them moves with the place."""
    rng = np.random.default_rng(draw)
    found = {}
    for depth, name in enumerate(LAYERS):
        own = rng.normal(size=(5, 1, 1, 40))
        place = rng.normal(size=(5, 4, 3, 40))
        share = invariant * (depth + 1) / len(LAYERS)
        found[name] = share * own + (1 - share) * place + 0.5
    return found


def source_of(invariant, draw=0):
    """Return such codes as a source."""
    return ArraySource(
        codes(invariant, draw),
        **PLACES,
        objects=[f"thing-{n}" for n in range(5)],
        reference=(18, 8),
    )


def measured(invariant, draw=0, **attrs):
    """Return a similarity of such codes, by the package's own function."""
    source = source_of(invariant, draw)
    scene = {"canvas": 48, "object_size": 12, "background": [0, 0, 0], "model": "net"}
    return similarity(source).assign_attrs({**scene, "command": "elsewhere similarity x", **attrs})


def tracked(draw=0, **attrs):
    """Return a track of four checkpoints, in which layers become invariant and lose it."""
    parts = [measured(invariant, draw) for invariant in (0.0, 0.4, 0.9, 0.3)]
    kept = ("cosine", "cosine_baseline", "cosine_G")
    names = [
        name
        for name in parts[0].data_vars
        if name in kept or str(name).removesuffix("_interval").endswith("_away")
    ]
    joined = xarray.concat([part[names] for part in parts], "checkpoint")
    joined = joined.assign_coords(
        phase=("checkpoint", ["learn"] * 3 + ["further"]), step=("checkpoint", [0, 10, 100, 50])
    )
    accuracies = {
        f"accuracy_{where}": (("checkpoint", "exemplars"), np.linspace(0.1, best, 8).reshape(4, 2))
        for where, best in (("on", 1.0), ("off", 0.6), ("far", 0.5))
    }
    joined = joined.assign(accuracies).assign_coords(exemplars=["same", "held-out"])
    facts = {"kind": "track", "metric": "cosine", "curriculum": "full", "n_classes": 10}
    return described(joined.assign_attrs({**parts[0].attrs, **facts, **attrs}))


def fill(folder, seeds=(100, 101)):
    """Write results as a reproduction leaves them."""
    for seed in seeds:
        own = folder / "seeds" / str(seed)
        own.mkdir(parents=True)
        for run, invariant in (("vanilla", 0.2), ("acquired", 0.8)):
            result = measured(invariant, seed, run=run, seed=seed)
            save_result(result, own / f"{run}-things-similarity.nc")
        save_result(tracked(seed, run="full", seed=seed), own / "full-track.nc")
    save_result(claims_result(len(seeds)), folder / "claims.nc")
    return folder


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A directory of results."""
    return fill(tmp_path_factory.mktemp("report") / "runs")


@pytest.fixture(scope="session")
def page(runs):
    """A report of that directory."""
    pytest.importorskip("bokeh", reason="reports are drawn by Bokeh")
    return write_report([runs], runs.parent / "report.html", title="Two seeds")


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """A directory with a recording of two exemplars of each of three categories."""
    folder = tmp_path_factory.mktemp("recorded") / "recorded"
    folder.mkdir()
    shown = {"objects": "glyphs", "categories": 3, "per_category": 2, "grid": "3x4"}
    elsewhere.record("small-cnn", str(folder / "run.h5"), layers=["fc*", "logits"], **shown)
    return folder


@pytest.fixture(scope="session")
def any_reference(recorded):
    """A report of that recording alone."""
    pytest.importorskip("bokeh", reason="reports are drawn by Bokeh")
    return write_report([recorded], recorded.parent / "any.html")


@pytest.fixture(scope="session")
def attributed(tmp_path_factory):
    """A directory with maps of what drives a network's answers."""
    folder = tmp_path_factory.mktemp("attributed") / "attributed"
    folder.mkdir()
    shown = {"objects": "glyphs", "categories": 2, "canvas": 48, "object_size": 12, "grid": "2x3"}
    how = {"target": "logit:0", "method": "input-x-gradient"}
    elsewhere.attribute("small-cnn", out=str(folder / "maps.nc"), **shown, **how)
    return folder


@pytest.fixture(scope="session")
def browser():
    """Chromium, driven by Playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="it drives the browser")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if found is None:
        pytest.skip("Debian's chromium is not installed")
    with api.sync_playwright() as playwright:
        options = {"executable_path": found, "args": ["--no-sandbox"], "timeout": 300_000}
        opened = playwright.chromium.launch(**options)
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser):
    """Return a function that opens a file in the browser; what it complains of fails the test."""
    said, pages = [], []
    harmless = ["[bokeh", "file://", "data:", "blob:"]

    def show(path, fragment="", width=1280, scheme="light", expected=(), **options):
        harmless.extend(expected)
        window = {"width": width, "height": 900}
        tab = browser.new_page(viewport=window, color_scheme=scheme, **options)
        pages.append(tab)
        tab.set_default_timeout(300_000)
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("console", lambda message: said.append(message.text))
        tab.on("request", lambda request: said.append(request.url))
        tab.goto(f"file://{path}{fragment}")
        if options.get("java_script_enabled", True):
            tab.wait_for_selector("html[data-ready=yes]")
        return tab

    yield show
    for tab in pages:
        tab.close()
    assert [text for text in said if not text.startswith(tuple(harmless))] == []

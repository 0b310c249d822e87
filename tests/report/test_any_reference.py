"""Any place as the reference: the page's numbers are those that the measure has for it."""

import re

import numpy as np
import pytest
import xarray

import elsewhere
from elsewhere.analyzer import similarity
from elsewhere.analyzer.factors import FactorSink, formed
from elsewhere.measures.variables import described
from elsewhere.report import check_report, write_report
from elsewhere.report.factors import factor
from elsewhere.storage import save_result
from tests.report.conftest import LAYERS, PLACES, source_of, tracked
from tests.report.test_browser import settled, shown

FORMED = ("cosine", "cosine_each", "cosine_baseline", "cosine_G")


@pytest.fixture
def recording(recorded):
    with elsewhere.open(recorded / "run.h5") as opened:
        yield opened


def places(recording):
    return [[int(value) for value in recording.design.axes[name].values] for name in "yx"]


def test_cosines_and_g_of_codes_are_those_of_the_measure(recording):
    ys, xs = places(recording)
    categories = recording.design.category_codes
    for y, x in ((0, 0), (2, 1)):
        measured = similarity(recording.at((ys[y], xs[x])))
        for layer in recording:
            values = recording[layer].values.reshape(6, 12, -1).astype(float)
            lengths = np.linalg.norm(values, axis=-1, keepdims=True)
            found = formed(values / lengths, categories, 4 * y + x)
            for name in FORMED:
                wanted = measured[name].sel(layer=layer).transpose(..., "y", "x").values
                np.testing.assert_allclose(found[name].reshape(wanted.shape), wanted, atol=2e-6)


def test_a_factor_says_its_errors_and_its_zero_vectors():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(30, 12, 400)).astype(np.float32)  # of a higher rank than any factor
    codes[3, 4] = 0
    codes /= np.maximum(np.linalg.norm(codes, axis=-1, keepdims=True), 1e-9)
    found = factor(codes, np.arange(30) // 2, "fc6")
    assert found.zeros == 1
    assert found.packed.shape[-1] == 96
    assert found.error > 0.05
    assert "1 of 360 codes are zero vectors" in found.note
    said = float(re.search(r"error of a cosine is ([\d.e-]+)", found.note)[1])
    assert found.error <= said <= 2 * found.error


def test_the_reference_is_moved_in_the_browser(open_page, any_reference, recording):
    """By the keys and the button; each number that is read out is near the measure's."""
    tab = open_page(any_reference, "#measure=cosine_G&layer=0&y=1&x=0")
    ys, xs = places(recording)
    layer = next(iter(recording))
    for keys, at in ((("ArrowUp", "Enter"), (0, 0)), (("End", " "), (1, 3))):
        tab.focus("#stage [role=gridcell]")
        for key in keys:
            tab.keyboard.press(key)
            settled(tab)
        assert "undefined" in tab.inner_text("#readout")  # at the reference itself
        measured = similarity(recording.at((ys[at[0]], xs[at[1]]))).sel(layer=layer)
        errors = tab.evaluate("catalogue.files[0].factors[0]")
        for key in ("ArrowDown", "Home", "ArrowRight"):  # faster than they are drawn
            tab.keyboard.press(key)
        settled(tab)
        for measure, error in (("cosine_G", "error_of_g"), ("cosine", "cosines_error")):
            tab.select_option("#choose-measure", measure)
            settled(tab)
            text = tab.inner_text("#readout")
            read = re.search(r": cosine(?: G)? ([\u2212\d.]+)", text)[1].replace("\u2212", "-")
            wanted = measured[measure].isel(y=at[0] + 1, x=1).item()
            assert float(read) == pytest.approx(wanted, abs=errors[error] + 6e-4), text
        assert f"y {ys[at[0] + 1]}, x {xs[1]}" in text
        tab.select_option("#choose-measure", "cosine_G")
        settled(tab)
    assert "factor of rank" in tab.inner_text("#notes")
    state = "Object.fromEntries(new URLSearchParams(location.hash.slice(1)))"
    tab.wait_for_timeout(400)
    kept = tab.evaluate(state)
    assert (kept["reference_y"], kept["reference_x"]) == ("1", "3")


def test_a_click_on_a_map_moves_the_reference(open_page, any_reference, recording):
    tab = open_page(any_reference, "#measure=cosine&layer=0&y=1&x=0")
    ys, xs = places(recording)
    at = tab.evaluate(
        """([y, x]) => {
          const { charts } = explorer, { canvas } = charts.scene;
          const { view, host } = charts.plots.maps;
          host.scrollIntoView({ block: "center" });
          const panel = charts.panels[1], box = host.getBoundingClientRect();
          return [box.left + view.frame.x_scale.compute(panel.x + x / canvas),
                  box.top + view.frame.y_scale.compute(-(panel.y + y / canvas))];
        }""",
        [ys[2], xs[3]],
    )
    tab.mouse.move(*at)
    layers = list(recording)
    assert f"y {ys[2]}, x {xs[3]}, {layers[1]}: cosine" in tab.inner_text("#readout")
    tab.mouse.move(1, 1)
    settled(tab)
    assert f"y {ys[1]}, x {xs[0]}, {layers[0]}: cosine" in tab.inner_text("#readout")
    tab.mouse.click(*at)
    settled(tab)
    text = tab.inner_text("#readout")
    assert f"y {ys[2]}, x {xs[3]}, {layers[1]}: cosine 1.000" in text  # with itself
    assert tab.evaluate("explorer.reference()") == [ys[2], xs[3]]


@pytest.fixture(scope="module")
def tracks(tmp_path_factory):
    """A report of a track that keeps factors of its first and last checkpoint."""
    pytest.importorskip("bokeh", reason="reports are drawn by Bokeh")
    folder = tmp_path_factory.mktemp("tracks") / "tracks"
    folder.mkdir()
    found = tracked(0, run="full", seed=0)
    kept = []
    for invariant in (0.0, 0.3):
        source = source_of(invariant)
        sink = FactorSink(source.design)
        source.stream([sink])
        kept.append(sink.result(list(LAYERS)).drop_vars("category"))
    joined = xarray.concat(kept, "code_factor_checkpoint", combine_attrs="drop")
    joined = joined.assign_coords(code_factor_checkpoint=[0, 3])
    joined = joined.where(joined["layer"] != "conv1")  # as where its codes are too many
    save_result(described(found.merge(joined)), folder / "full-track.nc")
    return folder, write_report([folder], folder.parent / "tracks.html")


def test_a_track_takes_any_reference_at_its_first_and_last_checkpoint(open_page, tracks):
    folder, page = tracks
    tab = open_page(page, "#what=track&measure=cosine_G")
    tab.focus("#stage [role=gridcell]")
    tab.keyboard.press("Enter")
    assert "“any reference: track” takes any place" in tab.inner_text("#hint")
    tab.select_option("#choose-what", "any reference: track")
    settled(tab)
    assert tab.get_attribute("#checkpoint", "max") == "1"
    for checkpoint, invariant in ((1, 0.3), (0, 0.0)):
        at = {"y": 2, "x": 1, "layer": 0, "reference_y": 3, "reference_x": 0}
        tab.evaluate("(at) => explorer.set(at)", {**at, "checkpoint": checkpoint})
        settled(tab)
        wanted = similarity(source_of(invariant).at((PLACES["y"][3], PLACES["x"][0])))
        error = tab.evaluate("explorer.file.factors.map(each => each.error_of_g)")
        value = wanted["cosine_G"].values[1, 2, 1]
        assert shown(tab) == pytest.approx(value, abs=error[2 * checkpoint] + 6e-4)
    assert "factor of rank" in tab.inner_text("#notes")
    found = check_report(page, [folder], numbers=200)
    assert found.different == ()


def test_the_check_forms_them_from_the_recording(any_reference, recorded, tmp_path):
    found = check_report(any_reference, [recorded])
    assert found.different == ()
    assert found.computed == found.drawn == 100
    # A page whose factors are a little larger has other cosines.
    text = any_reference.read_text()
    forged = re.sub(
        r'("scale": )([\d.e-]+)(, "offset")', lambda m: f"{m[1]}{float(m[2]) * 1.1}{m[3]}", text
    )
    assert forged != text
    (tmp_path / "forged.html").write_text(forged)
    found = check_report(tmp_path / "forged.html", [recorded])
    assert found.equal < found.drawn / 2
    assert "in the file" in found.different[0]

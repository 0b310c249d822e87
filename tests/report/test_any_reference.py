"""Any place as the reference: the page's numbers are those that the measure has for it."""

import re

import numpy as np
import pytest

import elsewhere
from elsewhere.analyzer import similarity
from elsewhere.report import check_report
from elsewhere.analyzer.factors import formed
from elsewhere.report.factors import factor
from tests.report.test_browser import settled

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

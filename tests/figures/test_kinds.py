from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure

import elsewhere.figures
from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures import draw, figure_kinds, plot_objects
from elsewhere.figures.kinds import DRAWN_OF
from elsewhere.storage import load_result

DRAWN_FROM = {
    "maps": "similarity",
    "layerwise": "similarity",
    "displacement": "similarity",
    "change": "similarity",
    "accuracy-maps": "accuracy",
    "accuracy-displacement": "accuracy",
    "acquisition": "track",
    "interference": "track",
    "claims": "claims",
    "measures": "measures",
    "steps": "measures",
    "equivariance": "measures",
    "identification": "measures",
    "partition": "measures",
    "phase": "measures",
    "probe-maps": "probe",
    "probe-matrix": "probe-each",
    "probe-layerwise": "probe",
    "attribution-grid": "attribution",
    "attribution-frame": "attribution",
    "attribution-equivariance": "attribution",
    "attribution-timeline": "attribution timeline",
    "sanity": "attribution sanity",
    "comparison": "comparison",
    "windows": "measures",
}
REFUSED = "no variable|runs over|no dimension|draws a comparison|has no attribute|no coordinate"
ALSO = {("probe-layerwise", "probe-each")}


def draw_kind(results, kind, **options):
    """Draw a kind of figure of a result that it is for: of two, where it is before and after."""
    result = results[DRAWN_FROM[kind]]
    return draw(result, kind, *[result] * (kind == "change"), **options)


@pytest.mark.parametrize("kind", list(figure_kinds))
def test_every_kind_draws_its_kind_of_result_and_refuses_others(results, kind):
    figure = draw_kind(results, kind)
    assert isinstance(figure, Figure)
    assert figure.axes
    assert figure_kinds.summary(kind)
    for made, other in results.items():
        if made != DRAWN_FROM[kind] and (kind, made) not in ALSO:
            with pytest.raises(InputError, match=REFUSED) as raised:
                draw(other, kind, *[other] * (kind == "change"))
            assert f"{DRAWN_OF[made][0]!r} can be drawn of this result" in str(raised.value)


def test_the_default_is_chosen_by_the_kind_of_result(results):
    drawn = draw(results["similarity"]).axes[0]
    shown = {text.get_text().replace("\n", " ") for text in drawn.get_legend().get_texts()}
    assert shown == {
        "same object elsewhere", "other object elsewhere", "other object, same place",
        "invariance (G)",
    }  # fmt: skip
    assert draw(results["accuracy"]).get_suptitle().startswith("accuracy, held-out exemplars")
    assert draw(results["track"]).axes[0].get_title(loc="left").startswith("acquisition")
    assert draw(results["claims"]).texts[0].get_text().startswith("claims · 4 seeds")
    assert draw(results["measures"]).get_suptitle().startswith("measures, layer by layer")
    assert set(DRAWN_OF) == set(results)
    assert {kind for kinds in DRAWN_OF.values() for kind in kinds} == set(figure_kinds)


def test_what_cannot_be_chosen_is_refused(result):
    with pytest.raises(UnknownNameError, match=r"kind of figure 'map'; nearest: maps"):
        draw(result, "map")
    with pytest.raises(UnknownNameError, match="kind of result 'recording'"):
        draw(result.assign_attrs(kind="recording"))
    with pytest.raises(InputError, match="figure 'maps' draws one result; got 2"):
        draw(result, "maps", result)
    result.attrs.pop("kind")
    with pytest.raises(InputError, match=r"no attribute 'kind'.*layerwise"):
        draw(result)
    with pytest.raises(InputError, match="got dict"):
        draw({})  # type: ignore[arg-type]


def test_drawing_ignores_and_keeps_the_user_settings(result):
    plain = draw(result, "maps")
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "text.color": "red"}):
        before = matplotlib.rcParams.copy()
        figure = draw(result, "maps")
        assert matplotlib.rcParams.copy() == before
    assert figure.axes[0].get_facecolor() == plain.axes[0].get_facecolor()
    assert figure._suptitle.get_color() == plain._suptitle.get_color()


def test_settings_are_restored_after_an_error(result):
    before = matplotlib.rcParams.copy()
    with pytest.raises(InputError):
        draw(result.drop_vars("cosine_away"))
    assert matplotlib.rcParams.copy() == before


def test_pyplot_knows_of_no_figure(results, make_objects):
    import matplotlib.pyplot as plt

    for kind in figure_kinds:
        draw_kind(results, kind)
    plot_objects(make_objects(("a", "b")))
    assert plt.get_fignums() == []


def test_importing_and_drawing_load_neither_torch_nor_h5py_nor_pyplot(tmp_path):
    code = (
        "import sys, numpy; from elsewhere.figures import plot_placements, save_figure; "
        "figure = plot_placements(numpy.zeros((1, 4, 4, 3), dtype='uint8')); "
        f"save_figure(figure, {str(tmp_path / 'a.png')!r}); "
        "print([m for m in ('torch', 'h5py', 'matplotlib.pyplot') if m in sys.modules])"
    )
    root = Path(elsewhere.figures.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "[]"


def test_public_names_are_sorted_and_there():
    assert list(elsewhere.figures.__all__) == sorted(elsewhere.figures.__all__)
    assert all(hasattr(elsewhere.figures, name) for name in elsewhere.figures.__all__)


@pytest.mark.parametrize("name", ["aligned", "track", "similarity", "measures"])
def test_results_of_earlier_versions_are_drawn(name):
    path = Path(__file__).parents[1] / "data" / f"{name}-0.2.nc"
    assert draw(load_result(path)).axes

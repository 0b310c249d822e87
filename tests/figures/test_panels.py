"""Several figures as panels of one, on pages and slides: nothing is cut off or overlaps."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures import draw, figure_kinds, plot_displacement, plot_layerwise, save_figure
from elsewhere.figures.kinds import labels_of
from tests.figures.conftest import measures_result, results_of_all_kinds, similarity_result
from tests.figures.test_kinds import draw_kind
from tests.figures.test_page import check, texts_of


@pytest.fixture(scope="module")
def results():
    return results_of_all_kinds()


def said(figure):
    return " ".join(text for text, _ in texts_of(figure)).replace("\n", " ")


@pytest.mark.parametrize("kind", list(figure_kinds))
def test_every_kind_fits_a_slide_in_large_text(results, kind):
    figure = draw_kind(results, kind, style="slides")
    assert figure.get_size_inches()[0] == pytest.approx(10)
    check(figure, kind)
    shown = {text.get_fontsize() for part in figure.parts for text in part.figure.findobj(Text)
             if text.get_text().strip()}  # fmt: skip
    assert min(shown) * figure.parts[0].scale >= 8


@pytest.mark.parametrize("kind", ["layerwise", "accuracy-maps", "claims", "sanity"])
def test_large_text_fits_as_small_text_does(results, kind):
    check(draw_kind(results, kind, width="254mm", font_size=16), kind)


@pytest.mark.parametrize("options", [{"width": "85mm"}, {"columns": 2}, {"style": "slides"}])
def test_panels_stand_in_one_figure_with_letters(results, options):
    figure = draw(results["similarity"], ["maps", "layerwise"], title="Both", **options)
    check(figure, str(options))
    assert {"a", "b", "Both"} <= {text.get_text() for text in figure.texts}
    assert "invariance (G), cosine" in said(figure)
    assert "cosine similarity" in said(figure)
    names = {text for text, _ in texts_of(figure)}
    assert {"conv1_1", "pool5", "fc7"} <= names


def test_panels_have_exactly_the_size_that_is_asked_for(results):
    figure = draw(
        results["similarity"], ["maps", "displacement"], width="120mm", height="150mm", title=False
    )  # fmt: skip
    assert figure.get_size_inches().tolist() == pytest.approx([120 / 25.4, 150 / 25.4])
    check(figure, "120 x 150 mm")
    with pytest.raises(InputError, match="not fit"):
        draw(results["similarity"], ["maps", "displacement"], width="120mm", height="40mm")


def test_each_panel_is_drawn_of_the_results_that_it_is_for(results):
    figure = draw(results["similarity"], ["layerwise", "accuracy-maps"], results["accuracy"])
    assert "mean away from the reference" in said(figure)
    assert "mean off the trained location" in said(figure)
    assert said(draw(results["similarity"], None, results["accuracy"])) == said(figure)
    names = ["conv1_1", "fc7"]  # accuracy has no layers
    few = draw(
        results["similarity"], ["layerwise", "accuracy-maps"], results["accuracy"], layers=names
    )  # fmt: skip
    assert "pool5" not in said(few)
    with pytest.raises(InputError, match="can be drawn of this result"):
        draw(results["similarity"], ["layerwise", "claims"])


@pytest.mark.parametrize("extension", ["svg", "pdf", "png"])
def test_files_of_panels_hold_text_and_are_the_same_each_time(results, tmp_path, extension):
    found = []
    for name in "ab":
        figure = draw(results["similarity"], ["maps", "layerwise"], style="slides")
        path = save_figure(figure, tmp_path / f"{name}.{extension}", dpi=50)
        found.append(path.read_bytes())
    assert found[0] == found[1]
    if extension == "svg":
        text = found[0].decode()
        assert ">same object<" in text or ">same object elsewhere<" in text
        assert "font: 14px" in text or "14px" in text  # as large as it is said to be
        assert 'width="720pt"' in text
    if extension == "pdf":
        assert b"/FontFile2" in found[0]
        assert b"/Type3" not in found[0]


def test_a_slide_is_a_smaller_page_enlarged(results, tmp_path):
    """Pixel for pixel: lines, marks, text and distances alike."""
    import matplotlib.image

    small = draw(results["similarity"], "layerwise", width=f"{254 / 1.75}mm")
    large = draw(results["similarity"], "layerwise", style="slides")
    scale = large.parts[0].scale
    assert np.allclose(large.get_size_inches(), scale * small.get_size_inches())
    small.draw_without_rendering()
    small.set_layout_engine("none")  # letters are spaced otherwise at another resolution
    save_figure(small, tmp_path / "small.png", dpi=175)
    save_figure(large, tmp_path / "large.png", dpi=100)
    one, other = (matplotlib.image.imread(tmp_path / f"{n}.png") for n in ("small", "large"))
    assert abs(one.shape[0] - other.shape[0]) <= 1
    rows, columns = (min(a, b) for a, b in zip(one.shape[:2], other.shape[:2], strict=True))
    apart = np.abs(one[:rows, :columns] - other[:rows, :columns]).max(axis=2) > 0.3
    assert apart.mean() < 0.01
    assert (one[:rows, :columns].min(axis=2) < 0.7).mean() > 0.02  # there is something to compare


def test_several_results_are_compared_in_one_figure(results):
    first, second = (
        similarity_result().assign_attrs(run=run, weights=run) for run in ("vanilla", "acquired")
    )
    shared = draw(first, "layerwise", second)
    assert "vgg16 (acquired)" in said(shared)
    change = draw(first, "change", second)
    assert "vanilla and acquired" in said(change)
    assert "before and later" in said(draw(first, "change", second, labels=["before", "later"]))
    runs = [results["accuracy"].assign_attrs(run=run) for run in ("one", "two", "three")]
    maps = draw(runs[0], "accuracy-maps", *runs[1:])
    assert [ax.get_title(loc="left") for ax in maps.axes[:3]] == ["one", "two", "three"]
    with pytest.raises(InputError, match="before and after; got 1"):
        draw(first, "change")
    with pytest.raises(InputError, match="takes no labels"):
        draw(first, "layerwise", second, labels=["a", "b"])
    with pytest.raises(InputError, match="expected one for each"):
        draw(first, "change", second, labels=["a"])
    assert labels_of([first, first], None) == ["1", "2"]


def test_what_cannot_be_drawn_as_panels_is_refused(result):
    for options, says in (
        ({"kind": []}, "no kind of figure"), ({"kind": ["maps"] * 2, "columns": 0}, "at least 1"),
        ({"kind": ["maps"] * 2, "quantities": ["colour"]}, "colour"),
    ):  # fmt: skip
        with pytest.raises((InputError, UnknownNameError), match=says):
            draw(result, **options)
    with pytest.raises(UnknownNameError, match="style 'poster'; nearest"):
        draw(result, style="poster")


@pytest.mark.parametrize("size", [(6.4, 4.8), (5, 3)])
def test_a_legend_has_room_in_a_figure_that_nothing_arranges(result, size):
    figure = Figure(figsize=size)
    first = figure.add_subplot(1, 2 if size[0] > 6 else 1, 1)
    plot_layerwise(result, ax=first)
    axes = [first]
    if size[0] > 6:
        axes.append(figure.add_subplot(1, 2, 2))
        plot_displacement(result, ax=axes[1])
    figure.draw_without_rendering()
    for ax in axes:
        legend = ax.get_legend().get_window_extent()
        assert legend.x1 <= figure.bbox.width
        assert legend.x0 >= ax.bbox.x1
        assert ax.bbox.width > 40
    if len(axes) > 1:
        assert axes[0].get_legend().get_window_extent().x1 < axes[1].bbox.x0


@pytest.mark.parametrize("count", [6, 15])
def test_an_interval_that_reaches_beyond_a_panel_has_a_mark(count):
    result = measures_result([f"layer{k}" for k in range(count)])
    low, high = result["cka_away_interval"].values.T
    low[2], high[4] = -9, 9
    result["cka_away_interval"] = (("layer", "bound"), np.stack([low, high], axis=1))
    figure = draw(result, "measures", width="85mm")
    check(figure, "measures")
    marked = [line for ax in figure.axes for line in ax.lines if line.get_label() == "_cut"]
    assert {(line.get_marker(), *line.get_xdata()) for line in marked} == {(7, 2), (6, 4)}
    assert "interval goes on" in said(figure)
    assert "interval goes on" not in said(draw(measures_result(), "measures"))

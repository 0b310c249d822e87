"""Figures on a journal's page: nothing overlaps or is cut off, legends never cover data."""

import numpy as np
import pytest
from matplotlib.text import Text

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures import draw, figure_kinds, page, plot_layerwise, save_figure
from elsewhere.figures.style import legend_lines
from elsewhere.figures.text import fitting, text_width, wrap
from tests.figures.conftest import (
    measures_result,
    probe_result,
    results_of_all_kinds,
    similarity_result,
    track_result,
    vgg16_layers,
)
from tests.figures.test_kinds import DRAWN_FROM, draw_kind


def corners_of(text, renderer):
    """Return the corners of a text's own box, turned as it is, px (4, 2)."""
    angle = np.deg2rad(text.get_rotation())
    straight = text.get_rotation()
    text.set_rotation(0)
    box = text.get_window_extent(renderer)
    text.set_rotation(straight)
    turned = text.get_window_extent(renderer)
    middle = np.array([turned.x0 + turned.x1, turned.y0 + turned.y1]) / 2
    half = np.array([box.width, box.height]) / 2 - 0.5  # a hair's breadth may touch
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return middle + (signs * half) @ turn.T


def overlap(first, second):
    """Return whether two turned rectangles overlap: no axis of either parts them."""
    for box in (first, second):
        for edge in (box[1] - box[0], box[2] - box[1]):
            length = np.hypot(*edge)
            if length < 1e-9:
                continue
            normal = np.array([-edge[1], edge[0]]) / length
            a, b = first @ normal, second @ normal
            if a.max() <= b.min() or b.max() <= a.min():
                return False
    return True


def texts_of(figure):
    """Return all visible texts of a figure, laid out, with their corners."""
    figure.draw_without_rendering()
    renderer = figure._get_renderer()
    hidden = set()  # numbers of ticks beyond the limits, which are not drawn
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            shown = axis._update_ticks() if ax.axison else []
            hidden |= {t for tick in axis.majorTicks for t in (tick.label1, tick.label2)}
            hidden |= {t for tick in axis.minorTicks for t in (tick.label1, tick.label2)}
            hidden -= {text for tick in shown for text in (tick.label1, tick.label2)}
            hidden |= set() if ax.axison else {axis.label}
    found = []
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text not in hidden:
            found.append((text.get_text(), corners_of(text, renderer)))
    return found


def check(figure, name):
    found = texts_of(figure)
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in found:
        assert box.min() > -2, f"{name}: {text!r} is cut off"
        assert (box.max(axis=0) < [width + 2, height + 2]).all(), f"{name}: {text!r} is cut off"
    boxes = np.array([box for _, box in found])
    low, high = boxes.min(axis=1), boxes.max(axis=1)
    near = ((low[:, None] < high) & (high[:, None] > low)).all(axis=2)  # others cannot overlap
    clashes = [
        (found[a][0], found[b][0]) for a, b in np.argwhere(np.triu(near, 1))
        if overlap(boxes[a], boxes[b])
    ]  # fmt: skip
    assert not clashes, f"{name}: {clashes}"
    for ax in figure.axes:
        legend = ax.get_legend()
        if legend is not None and ax.axison:
            assert not legend.get_window_extent().overlaps(ax.get_window_extent()), name


@pytest.fixture(scope="module")
def results():
    return results_of_all_kinds()


@pytest.mark.parametrize("kind", list(figure_kinds))
def test_no_text_overlaps_is_cut_off_or_small_at_85_mm(results, kind):
    figure = draw_kind(results, kind, width="85mm", font_size=7)
    assert figure.get_size_inches()[0] == pytest.approx(85 / 25.4)
    check(figure, kind)
    sizes = {text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip()}
    assert min(sizes) >= 7


TALL = ("claims", "measures", "attribution-timeline")
LOW = [kind for kind in figure_kinds if kind not in TALL]


@pytest.mark.parametrize("kind", LOW)
def test_nor_at_85_by_70_mm_without_a_title(results, kind):
    figure = draw_kind(results, kind, width="85mm", height="70mm", font_size=7, title=False
    )  # fmt: skip
    assert figure.get_size_inches().tolist() == pytest.approx([85 / 25.4, 70 / 25.4])
    check(figure, kind)


@pytest.mark.parametrize("kind", list(figure_kinds))
def test_nor_at_the_default_size(results, kind):
    check(draw_kind(results, kind), kind)


@pytest.mark.parametrize("kind", ["layerwise", "maps", "displacement"])
def test_many_layers_fit_a_narrow_page(deep_result, kind):
    some = slice(None, None, 3 if kind == "maps" else 1)  # a panel each takes its time
    check(draw(deep_result.isel(layer=some), kind, width="85mm", font_size=7), kind)


@pytest.mark.parametrize("font_size", [None, 7])
def test_a_curve_with_all_its_marks_fits_a_low_page(font_size):
    result = similarity_result(["stem.2", "body.0", "body.3", "head"])
    for name in ("cosine_away", "cosine_G_away"):
        edges = result[name].values[:, None] + np.array([-0.1, 0.1])
        result[f"{name}_band"] = (("layer", "bound"), edges)
    result["cosine_G_away"][1] = np.nan  # "no value"
    result["cosine_zero_share"][0] = 0.2
    figure = draw(
        result, quantities=["similarity", "G"], width="85mm", height="60mm", font_size=font_size
    )
    check(figure, "layerwise")
    assert figure.axes[0].get_position().height > 0.35
    assert len(figure.axes[0].get_legend().get_texts()) == 7


def test_breaks_of_labels_are_kept_where_they_save_lines():
    labels = ["same object", "other object", "no value", "95 % simultaneous\nover layers"]
    assert legend_lines(labels, 9.0, 7, 2) == (1, [" ".join(t.split()) for t in labels], 4)
    wide = text_width("other object", 7) + text_width("95 % simultaneous", 7) + 0.9
    lines, written, columns = legend_lines(labels, wide, 7, 2)
    assert (lines, written[-1], columns) == (3, labels[-1], 2)
    assert legend_lines(labels, 0.5, 7, 2)[0] == 5  # joined it would be cut off


def test_a_page_that_is_too_low_is_refused(results):
    for kind in ("layerwise", "claims", "attribution-timeline"):
        with pytest.raises(InputError, match=r"mm"):
            draw_kind(results, kind, width="85mm", height="26mm")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"width": "wide"}, "85mm"),
        ({"width": "3mm"}, "25.4 mm"),
        ({"height": "85px"}, "the height is '85px'"),
        ({"font_size": 2}, "4 to 24 points"),
    ],
)
def test_pages_that_cannot_be(result, options, says):
    with pytest.raises(InputError, match=says):
        draw(result, **options)


def test_lengths_are_read_in_their_units(result):
    for width in ("85mm", "8.5cm", "3.34646in", "240.945pt", 85, "85"):
        with page(width=width):
            drawn = plot_layerwise(result)
        assert drawn.figure.get_size_inches()[0] == pytest.approx(85 / 25.4, abs=1e-4)
    assert plot_layerwise(result).figure.get_size_inches()[0] == 7  # the page ends with its block


@pytest.mark.parametrize(
    ("kind", "quantities"),
    [
        ("layerwise", ["G"]), ("maps", ["baseline", "G"]), ("acquisition", ["far"]),
        ("interference", ["on", "far"]), ("measures", ["cka"]), ("steps", ["cka"]),
        ("equivariance", ["plain_G_away"]), ("partition", ["object"]),
        ("identification", ["identification_raw_away"]), ("phase", ["shift_share_in_phase"]),
        ("probe-maps", ["same"]), ("probe-matrix", ["same"]), ("probe-layerwise", ["far"]),
        ("attribution-equivariance", ["cosine"]), ("sanity", ["cosine"]),
        ("accuracy-maps", ["same"]), ("displacement", ["G"]), ("accuracy-displacement", ["same"]),
        ("attribution-grid", ["cosine"]),
    ],
)  # fmt: skip
def test_quantities_are_chosen(results, kind, quantities):
    assert draw_kind(results, kind, quantities=quantities).axes
    with pytest.raises((UnknownNameError, InputError), match="colour"):
        draw_kind(results, kind, quantities=["colour"])


def test_what_has_no_quantities_says_which_figures_have(results):
    with pytest.raises(InputError, match=r"'claims' no quantities.*draw one of maps, layerwise"):
        draw(results["claims"], "claims", quantities=["C1"])


def test_a_track_draws_the_quantities_asked_for_and_no_other(results):
    track = results["track"]
    for quantities, names in (
        (["on", "off"], ["accuracy"]), (["G"], ["invariance (G)"]),
        (["far", "G"], ["accuracy", "invariance (G)"]),
    ):  # fmt: skip
        for kind in ("acquisition", "interference"):
            figure = draw(track, kind, quantities=quantities, width="85mm")
            assert [ax.get_ylabel() for ax in figure.axes] == names
            check(figure, kind)
    with pytest.raises(InputError, match="layers are those of G"):
        draw(track, quantities=["on"], layers=["fc1"])


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        ([10, 20, 40], {"10", "20", "40"}), ([0, 60], {"0", "60"}),
        ([0, 1, 2, 5, 10, 20, 50, 100, 200, 500], {"0", "1", "10", "100"}),
        ([0, *range(200, 3200, 300)], {"0", "1k"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("width", ["60mm", "178mm"])
def test_steps_are_numbered_where_there_are_checkpoints(steps, wanted, width):
    figure = draw(track_result(phases={"learn": steps}), width=width, title=False)
    check(figure, "acquisition")
    shown = {text.get_text() for text in figure.axes[-1].get_xticklabels()}
    assert wanted <= shown


NAMES = {
    "raw.pixels.and.more": "mean", "features.denseblock2.denselayer12.conv2": "sketch:128",
    "head": "full",
}  # fmt: skip


def named(kind):
    """Return a result of a kind with long names of layers, in three forms."""
    made = {
        "similarity": similarity_result, "track": lambda n: track_result(layers=tuple(n)),
        "measures": measures_result, "probe": lambda n: probe_result().assign_coords(layer=n),
        "probe-each": lambda n: probe_result(each=True).assign_coords(layer=n),
    }[kind](list(NAMES))  # fmt: skip
    return made.assign_coords(kept=("layer", list(NAMES.values())))


FORMED = [
    kind
    for kind in figure_kinds
    if "layer" in results_of_all_kinds()[DRAWN_FROM[kind]].dims
    and kind != "windows"  # of the one layer that says where it looks
]


@pytest.mark.parametrize("kind", FORMED)
def test_names_and_forms_of_layers_stand_whole(kind):
    figure = draw_kind({DRAWN_FROM[kind]: named(DRAWN_FROM[kind])}, kind, width="85mm", font_size=7)
    check(figure, kind)
    shown = "".join(text for text, _ in texts_of(figure)).replace("\n", "").replace(" ", "")
    assert "…" not in shown
    forms = ["(mean)", "(sketch:128)", ""]
    assert all(name + form in shown for name, form in zip(NAMES, forms, strict=True))


def test_panels_stand_whole_on_a_low_page_and_only_those_asked_for():
    result = probe_result().assign_coords(layer=["activation2", "fc5", "logits"])
    options = {"width": "85mm", "height": "60mm", "font_size": 7, "title": False}
    figure = draw(result, layers=["activation2", "logits"], **options)
    check(figure, "probe-maps")
    names = [ax.get_title(loc="left").strip() for ax in figure.axes]
    assert names == ["activation2", "logits", ""]  # the last is the colour bar
    figure = draw(result, layers=["raw pixels", "fc5"], **options)
    assert [ax.get_title(loc="left").strip() for ax in figure.axes] == ["raw pixels", "fc5", ""]


def test_layers_are_chosen_in_every_figure_that_has_them(results):
    for kind in figure_kinds:
        result = results[DRAWN_FROM[kind]]
        if kind == "windows":  # of the one layer that says where it looks, which the title names
            shown = " ".join(text for text, _ in texts_of(draw_kind(results, kind)))
            assert any(str(name) in shown for name in result["layer"].values)
            continue
        if "layer" not in result.dims:
            with pytest.raises(InputError, match="of no layers"):
                draw(result, kind, layers=["fc7"])
            continue
        names = [str(result["layer"].values[k]) for k in (0, -1)]
        shown = [text for text, _ in texts_of(draw_kind(results, kind, layers=names))]
        others = set(map(str, result["layer"].values)) - set(names)
        assert not others & set(shown), kind
        wanted = set(names[:1]) if kind == "phase" else set(names)  # of maps only
        assert wanted <= {text.split(" ")[0] for text in shown}, kind


def test_a_raw_similarity_is_never_drawn_alone(result):
    ax = plot_layerwise(result, quantities=["similarity"])
    assert {"similarity", "baseline"} <= {line.get_label() for line in ax.lines}


def test_titles_break_between_words():
    title = "accuracy, held-out exemplars · small-cnn (weights: pretrain-003000.safetensors) · 10"
    for width in (1.5, 2.4, 3.3, 5.0):
        lines = wrap(title, width, 9).split("\n")
        words = set(title.replace("·", "").split())
        assert all(text_width(line, 9) <= width for line in lines)
        broken = {word for line in lines for word in line.split()} - words - {"·"}
        assert all("…" in word for word in broken), broken
    assert wrap("a" * 300, 1, 9) == fitting("a" * 300, 1, 9)


def test_texts_of_files_are_texts(result, tmp_path):
    figure = draw(result, width="85mm")
    svg = save_figure(figure, tmp_path / "a.svg").read_text()
    assert "<text" in svg
    assert ">same object elsewhere<" in svg
    pdf = save_figure(figure, tmp_path / "a.pdf").read_bytes()
    assert b"/FontFile2" in pdf  # TrueType: letters, which a search finds
    assert b"/Type3" not in pdf


def test_deep_networks_fit(result):
    check(draw(similarity_result(vgg16_layers()), width="120mm"), "layerwise")

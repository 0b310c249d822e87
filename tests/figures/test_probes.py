from __future__ import annotations

import numpy as np
import pytest

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures import plot_probe_layerwise, plot_probe_maps, plot_probe_matrix


def titles(figure, loc="left"):
    return [ax.get_title(loc=loc) for ax in figure.axes if ax.get_title(loc=loc)]


def test_maps_have_a_panel_for_each_layer_on_one_scale_from_chance(make_probe):
    result = make_probe()
    figure = plot_probe_maps(result)
    assert titles(figure) == ["raw pixels", "pool4", "fc5", "fc6"]
    assert titles(figure, "right")[1:] == [
        f"{v:.2f}" for v in result["accuracy_at"].sel(exemplars="held-out", where="off").values
    ]
    for ax in figure.axes[:4]:
        (mesh,) = ax.collections
        assert (mesh.norm.vmin, mesh.norm.vmax) == (0.125, 1.0)
        ring = next(line for line in ax.lines if line.get_label() == "trained")
        assert (ring.get_xdata(), ring.get_ydata()) == ([5], [24])
    drawn = figure.axes[3].collections[0].get_array()
    np.testing.assert_allclose(drawn, result["accuracy"].values[2, 1])
    assert "held-out exemplars" in figure.get_suptitle()
    assert titles(plot_probe_maps(result, layers=["fc5"])) == ["fc5"]


def test_maps_draw_the_trained_exemplars_where_none_is_held_out(make_probe):
    assert "same exemplars" in plot_probe_maps(make_probe(held_out=False)).get_suptitle()
    assert "same exemplars" in plot_probe_maps(make_probe(), exemplars="same").get_suptitle()
    with pytest.raises(UnknownNameError, match="kind of exemplars 'some'"):
        plot_probe_maps(make_probe(), exemplars="some")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no held-out exemplars; it has: same"):
        plot_probe_maps(make_probe().sel(exemplars=["same"]), exemplars="held-out")
    with pytest.raises(UnknownNameError, match="layer 'fc7'"):
        plot_probe_maps(make_probe(), layers=["fc7"])


def test_the_matrix_has_trained_rows_and_tested_columns(make_probe):
    result = make_probe(each=True)
    result["accuracy"][2, 1, 0, 2, 2, 1] = 0.125
    figure = plot_probe_matrix(result)
    assert titles(figure) == ["pool4", "fc5", "fc6"]
    image = figure.axes[2].images[0].get_array()
    assert image.shape == (9, 9)
    assert image[2, 7] == 0.125
    assert image[7, 2] != 0.125
    np.testing.assert_allclose(np.diag(image), result["accuracy"].values[2, 1, 0, 0, 0, 0])
    off = image[~np.eye(9, dtype=bool)].mean()
    assert titles(figure, "right")[2] == f"{off:.2f}"


def test_layerwise_draws_both_exemplars_and_the_controls(make_probe):
    result = make_probe()
    ax = plot_probe_layerwise(result)
    lines = {line.get_label(): line for line in ax.lines}
    for name in ("same", "held-out", "untrained_same", "untrained_held-out"):
        assert name in lines
    np.testing.assert_allclose(lines["same"].get_ydata(), result["II_far"].values[:, 0])
    assert {"pixels_same", "pixels_held-out"} <= set(lines)
    assert "chance" not in lines
    far = plot_probe_layerwise(result, quantity="far")
    labels = {line.get_label(): line for line in far.lines}
    assert {"chance", "shuffled_same", "shuffled_held-out"} <= set(labels)
    assert list(labels["chance"].get_ydata()) == [0.125, 0.125]
    with pytest.raises(UnknownNameError, match="quantity 'farr'; nearest: far"):
        plot_probe_layerwise(result, quantity="farr")  # type: ignore[arg-type]


def test_layerwise_flags_what_reads_shuffled_labels_and_marks_gaps(make_probe):
    def legend(ax):
        return [text.get_text() for text in ax.get_legend().get_texts()]

    assert not any("shuffled" in text for text in legend(plot_probe_layerwise(make_probe())))
    assert any("shuffled" in t for t in legend(plot_probe_layerwise(make_probe(flag=True))))
    result = make_probe()
    result["II_far"][1, 0] = np.nan
    ax = plot_probe_layerwise(result)
    assert "no value" in legend(ax)
    (cross,) = (line for line in ax.lines if line.get_label() == "_no value")
    assert abs(cross.get_xdata()[0] - 1) < 0.5
    alone = plot_probe_layerwise(make_probe(controls=False))
    assert legend(alone) == ["held-out exemplars", "same exemplars"]


def test_each_result_has_its_own_figure(make_probe):
    with pytest.raises(InputError, match="runs over"):
        plot_probe_maps(make_probe(each=True))
    with pytest.raises(InputError, match="runs over"):
        plot_probe_matrix(make_probe())
    plot_probe_layerwise(make_probe(each=True))

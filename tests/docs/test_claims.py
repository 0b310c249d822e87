"""The tables of claims are what the files of claims say."""

import importlib.util
from pathlib import Path

PATH = Path(__file__).parents[2] / "docs" / "make_claims.py"


def test_the_tables_of_claims_are_made_from_their_data():
    spec = importlib.util.spec_from_file_location("make_claims", PATH)
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    page = maker.PAGE.read_text()
    assert page.count("<!-- claims ") == len(maker.BLOCK.findall(page)) > 0
    assert page == maker.make_page(page), "run: python docs/make_claims.py"

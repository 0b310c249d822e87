"""Tidy tables: every number once, named by its coordinates."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import xarray

from elsewhere.errors import ExistsError, InputError, UnknownNameError
from elsewhere.storage import save_table, tidy_table
from elsewhere.storage.tables import ESCAPED


@pytest.fixture
def result():
    rng = np.random.default_rng(0)
    return xarray.Dataset(
        {
            "matrix": (("layer", "reference_x", "x"), rng.normal(size=(2, 3, 3))),
            "share": ("layer", [0.5, np.nan]),
            "flag": ("x", [True, False, True]),
            "whole": 3,
            "words": ("layer", ["a", "b"]),
        },
        {"layer": ["fc6", "fc7"], "kept": ("layer", ["full", "mean"]), "x": [5, 9, 13],
         "reference_x": [5, 9, 13]},
    )  # fmt: skip


def test_every_number_has_a_row(result):
    table = tidy_table(result)
    assert table.columns[0] == "variable"
    assert table.columns[-1] == "value"
    assert len(table) == 18 + 2 + 3 + 1
    for _, row in table[table.variable == "matrix"].iterrows():
        value = result["matrix"].sel(layer=row.layer, x=row.x, reference_x=row.reference_x)
        assert row.value == float(value)
        assert row.kept == str(result["kept"].sel(layer=row.layer).item())
    assert table[table.variable == "share"]["x"].isna().all()
    assert table["x"].dtype == "Int64"


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_file_gives_the_table_back(result, name, tmp_path):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    path = save_table(result, tmp_path / name)
    read = pandas.read_csv(path) if name.endswith("csv") else pandas.read_parquet(path)
    np.testing.assert_array_equal(read["value"], tidy_table(result)["value"])
    with pytest.raises(ExistsError):
        save_table(result, path)
    save_table(result, path, overwrite=True)


def test_what_cannot_be_written_is_refused(result, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"\.csv, \.parquet or"):
        save_table(result, tmp_path / "t.txt")
    with pytest.raises(UnknownNameError, match="nearest: share"):
        tidy_table(result, ["shar"])
    with pytest.raises(InputError, match="no numbers"):
        tidy_table(result[["words"]])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match="Parquet needs pyarrow"):
        save_table(result, tmp_path / "t.parquet")
    assert not list(tmp_path.iterdir())


NAMES = ["001", "NA", "1e3", "TRUE", "a\r\nb", 'quo"te', "comma,s", " edge ", "Ω"]


@pytest.fixture
def named(tmp_path):
    result = xarray.Dataset(
        {"v": ("object", np.linspace(0.1, 0.9, len(NAMES)) / 3)},
        {"object": NAMES, "category": ("object", NAMES[::-1])},
    )
    return save_table(result, tmp_path / "names.csv")


def test_names_come_back_in_pandas_as_the_page_says(named):
    texts = {"object": str, "category": str}
    read = pandas.read_csv(named, dtype=texts, keep_default_na=False, na_values=[""])
    assert read["object"].tolist() == NAMES
    assert read["category"].tolist() == NAMES[::-1]
    np.testing.assert_array_equal(read["value"], np.linspace(0.1, 0.9, len(NAMES)) / 3)


ODD = ["-cat", "- 5", "-5", "+1e3", "=1+1", "@x", "\ttab", "'=x", "''-y", "'-5", "'plain", "-inf",
       " =1+1", "\u00a0@x", " '=x", "' =x", "  plain", " -5"]  # fmt: skip


def test_names_like_formulas_come_back_as_the_page_says(tmp_path):
    """An apostrophe keeps spreadsheets from running them; negative numbers get none."""
    values = np.linspace(-1, 1, len(ODD)) / 3
    result = xarray.Dataset({"v": ("object", values)}, {"object": ODD, "x": ("object", -values)})
    path = save_table(result, tmp_path / "odd.csv")
    page = (Path(__file__).parents[2] / "docs" / "measures.md").read_text()
    assert ESCAPED in page
    read = pandas.read_csv(path, dtype={"object": str}, keep_default_na=False, na_values=[""])
    written = read["object"].tolist()
    assert written[:3] == ["'-cat", "'- 5", "-5"]
    assert not any(name.lstrip().startswith(("=", "@")) or name[0] == "\t" for name in written)
    assert read["object"].str.replace(ESCAPED, "", regex=True).tolist() == ODD
    np.testing.assert_array_equal(read["value"], values)
    np.testing.assert_array_equal(read["x"], -values)


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="R is not installed (r-base-core)")
def test_names_come_back_in_r_as_the_page_says(named):
    program = (
        'd <- read.csv(commandArgs(TRUE)[1], colClasses = c(object = "character", '
        'category = "character"), na.strings = "", encoding = "UTF-8"); '
        'cat(nrow(d), sprintf("%.17g", d$value), sep = "\n"); cat("\n"); '
        'cat(paste(utf8ToInt(enc2utf8(paste(d$object, collapse = "|"))), collapse = " "))'
    )
    done = subprocess.run(
        ["Rscript", "-e", program, str(named)], capture_output=True, text=True, check=True
    )
    count, *values, codes = done.stdout.split("\n")
    values = [value for value in values if value]
    assert int(count) == len(NAMES)
    assert [float(value) for value in values] == (np.linspace(0.1, 0.9, len(NAMES)) / 3).tolist()
    found = "".join(chr(int(code)) for code in codes.split()).split("|")
    assert [name.replace("\r\n", "\n") for name in NAMES] == [
        name.replace("\r\n", "\n") for name in found
    ]


def test_a_cell_of_a_workbook_without_a_value_is_empty(tmp_path):
    openpyxl = pytest.importorskip("openpyxl", reason="workbooks need openpyxl")
    mixed = pandas.Series([1, "=x", np.nan, None], dtype=object)
    whole = pandas.array([1, None, 3, 4], dtype="Int64")
    table = pandas.DataFrame({"left_out": whole, "bound": ["low", np.nan, None, "a"], "m": mixed})
    path = save_table(table, tmp_path / "t.xlsx")
    _, *rows = openpyxl.load_workbook(path).active.values
    assert rows == [(1, "low", 1), (None, None, "'=x"), (3, None, None), (4, "a", None)]

"""Tidy tables: every number once, named by its coordinates."""

import sys

import numpy as np
import pandas
import pytest
import xarray

from elsewhere.errors import ExistsError, InputError, UnknownNameError
from elsewhere.storage import save_table, tidy_table


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
    with pytest.raises(InputError, match=r"\.csv or \.parquet"):
        save_table(result, tmp_path / "t.txt")
    with pytest.raises(UnknownNameError, match="nearest: share"):
        tidy_table(result, ["shar"])
    with pytest.raises(InputError, match="no numbers"):
        tidy_table(result[["words"]])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match="Parquet needs pyarrow"):
        save_table(result, tmp_path / "t.parquet")
    assert not list(tmp_path.iterdir())

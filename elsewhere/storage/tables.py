"""Results as tidy tables: one row per number."""

from __future__ import annotations

import csv
import importlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import xarray

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.storage.files import check_output, save_output, write_atomically

TABLE_ENDINGS = (".csv", ".parquet", ".xlsx")
_NEEDS = {
    ".parquet": ("Parquet", "pyarrow", "'elsewhere[parquet]'"),
    ".xlsx": ("Excel", "openpyxl", "openpyxl"),
}
SHEET_ROWS = 2**20
"""Rows of a sheet of Excel, its heading among them."""


def tidy_table(result: xarray.Dataset, variables: Sequence[str] | None = None) -> pandas.DataFrame:
    """Return a result as a tidy table: one row for each number, named by its coordinates.

    Parameters
    ----------
    result
        Any result.
    variables
        Which of its variables; all that hold numbers or truth values by default.

    Returns
    -------
    pandas.DataFrame
        Columns: ``variable``; one for each dimension that a variable has, empty for those without
        it, and for coordinates along a dimension (such as an object's category); ``value``.

    Raises
    ------
    UnknownNameError
        The result has no such variable.
    InputError
        It holds no numbers.

    Examples
    --------
    >>> result = xarray.Dataset({"G": ("layer", [0.5, 1.0])}, {"layer": ["fc6", "fc7"]})
    >>> print(tidy_table(result).to_csv(index=False))
    variable,layer,value
    G,fc6,0.5
    G,fc7,1.0
    <BLANKLINE>
    """
    known = [str(name) for name in result.data_vars]
    for name in variables or ():
        if name not in known:
            raise UnknownNameError("variable", name, known)
    numbers = [name for name in known if result[name].dtype.kind in "fiub"]
    wanted = numbers if variables is None else list(variables)
    if text := [name for name in wanted if name not in numbers]:
        raise InputError(
            f"variable {text[0]!r} holds {result[text[0]].dtype}, and a table has one column of "
            f"numbers; leave it out, or take one of {', '.join(numbers) or 'none: there are none'}"
        )
    if not wanted:
        raise InputError("the result holds no numbers; nothing would stand in the table")
    frames = []
    for name in wanted:
        array = result[name]
        columns: dict[str, object] = {"variable": np.full(array.size, name)}
        grids = np.indices(array.shape).reshape(array.ndim, -1) if array.ndim else np.empty((0, 1))
        along = dict(zip(map(str, array.dims), grids, strict=True))
        for dim, index in along.items():
            for key, coordinate in result.coords.items():
                dims = list(map(str, coordinate.dims))
                if dims[-1:] == [dim] and {*dims} <= {*along}:
                    columns[str(key)] = coordinate.values[tuple(along[each] for each in dims)]
            columns.setdefault(dim, index)
        columns["value"] = array.values.ravel().astype(np.float64)
        frames.append(pandas.DataFrame(columns))
    table = pandas.concat(frames, ignore_index=True)
    order = ["variable", *(c for c in table.columns if c not in ("variable", "value")), "value"]
    return _whole_numbers(table[order], result)


def _whole_numbers(table: pandas.DataFrame, result: xarray.Dataset) -> pandas.DataFrame:
    """Return px and numbers as whole numbers where some rows have none."""
    for name in table.columns:
        if name in result.coords and result[name].dtype.kind in "iu":
            table[name] = table[name].astype("Int64")
    return table


ROW_BYTES = {".csv": 64, ".parquet": 8, ".xlsx": 16}
"""Of a row that names what a number is of, at least; Parquet compresses the names."""


def table_bytes(path: Path, n_rows: int) -> int:
    """Return the bytes of a table of so many rows, at least."""
    return ROW_BYTES[path.suffix] * n_rows


def check_table_name(path: str | Path, *, overwrite: bool = False) -> Path:
    """Refuse a name that is no table's, or that is there, before anything is computed.

    Raises
    ------
    InputError
        An ending other than ``.csv``, ``.parquet`` and ``.xlsx``, or a package is missing.
    ExistsError
        The file exists and `overwrite` is not given.
    """
    path = Path(path)
    if path.suffix not in TABLE_ENDINGS:
        raise InputError(
            f"cannot write a table to {path}; expected a name in .csv, .parquet or .xlsx"
        )
    if path.suffix in _NEEDS:
        what, package, named = _NEEDS[path.suffix]
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise InputError(
                f"cannot write {path}: {what} needs {package}; pip install {named}, or name a "
                ".csv file"
            ) from error
    check_output(path, overwrite=overwrite)
    return path


_FORMULA = r"'*[\t\r\n]|['\s]*[=+\-@＝＋－＠]"
"""The beginning of a text that a spreadsheet takes for a formula, and runs, also behind spaces."""

ESCAPED = rf"^'(?={_FORMULA})"
"""A regular expression of what is to be taken off a text of a CSV file to have it as it was."""


def to_csv(table: pandas.DataFrame) -> bytes:
    """Return a table as CSV in UTF-8 that a spreadsheet can open without running what is in it.

    Texts are quoted, numbers are not. A text that a spreadsheet would take for a formula gets an
    apostrophe in front, as spreadsheets write texts, and so does one that begins with apostrophes
    before such a text, so that one can be taken off again (`ESCAPED`); texts that are numbers stay
    as they are.

    Examples
    --------
    >>> table = pandas.DataFrame({"object": ["=1+1", "-5", "cat"], "value": [-1.5, 2.0, 3.0]})
    >>> print(to_csv(table).decode())
    "object","value"
    "'=1+1",-1.5
    "-5",2.0
    "cat",3.0
    <BLANKLINE>
    """
    data: str = _safe(table).to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)
    return data.encode("utf-8", "backslashreplace")


def to_xlsx(table: pandas.DataFrame) -> bytes:
    """Return a table as a workbook of Excel, its texts as in :func:`to_csv`.

    Raises
    ------
    InputError
        It has more rows than a sheet.
    """
    if len(table) >= SHEET_ROWS:
        raise InputError(
            f"the table has {len(table)} rows, and a sheet of Excel holds {SHEET_ROWS - 1}; name a "
            ".csv or .parquet file, or take fewer --variables"
        )
    plain = _safe(table)
    for name in plain.select_dtypes(include=["object", "string", "category"]).columns:
        plain[name] = plain[name].map(_for_a_cell)
    file = io.BytesIO()
    plain.to_excel(file, index=False, engine="openpyxl")
    return file.getvalue()


_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
"""What no text of a workbook may hold."""


def _for_a_cell(value: Any) -> Any:
    """Return what a cell can hold: nothing where nothing is, numbers as they are."""
    if pandas.isna(value):
        return None
    return value if isinstance(value, (int, float, np.generic)) else _NO_TEXT.sub("?", str(value))


def _safe(table: pandas.DataFrame) -> pandas.DataFrame:
    """Return a table without a text that a spreadsheet would run."""
    texts = table.select_dtypes(include=["object", "string", "category"]).columns
    safe = table.assign(**{name: table[name].map(_as_text) for name in texts})
    safe.columns = [_as_text(name) for name in safe.columns]
    return safe


def _as_text(value: object) -> object:
    if not isinstance(value, str) or not re.match(_FORMULA, value):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def save_table(
    result: xarray.Dataset | pandas.DataFrame,
    path: str | Path,
    *,
    overwrite: bool = False,
    rescue: bool = False,
) -> Path:
    """Write a result as a tidy table: CSV, Parquet or Excel by the ending of the name.

    Parameters
    ----------
    result
        A result, or a table of it.
    path
        Ends in ``.csv``, ``.parquet`` or ``.xlsx``.
    overwrite
        Whether an existing file is replaced.
    rescue
        Whether it goes elsewhere where it cannot be written there; the error says where. The name
        is not looked at then: see `check_table_name`.

    Raises
    ------
    InputError
        Another ending, a missing package, or more rows than a sheet of Excel has.
    ExistsError
        The file exists and `overwrite` is not given.
    StorageError
        It cannot be written.
    """
    path = Path(path) if rescue else check_table_name(path, overwrite=overwrite)
    table = tidy_table(result) if isinstance(result, xarray.Dataset) else result
    if path.suffix == ".xlsx":
        data = to_xlsx(table)
    elif path.suffix == ".csv":
        data = to_csv(table)
    else:
        data = table.to_parquet(index=False, engine="pyarrow")
    write = save_output if rescue else write_atomically
    write(path, data, overwrite=overwrite)
    return path

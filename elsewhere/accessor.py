"""``result.elsewhere``: results drawn, written as tables and reported, from the result itself.

The package registers it as soon as xarray is there (see ``elsewhere/__init__.py``); it imports
neither torch nor matplotlib before they are needed.
"""

from __future__ import annotations

import importlib
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray

from elsewhere.displays import result_page, result_words
from elsewhere.notes import notes_of

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


@xarray.register_dataset_accessor("elsewhere")  # type: ignore[no-untyped-call]
class Elsewhere:
    """What can be done with a result, whether it was computed here or opened with xarray.

    Examples
    --------
    >>> import elsewhere
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> arrays = elsewhere.ArraySource({"fc": rng.normal(size=(4, 1, 3, 9))}, y=[5], x=[5, 7, 9])
    >>> result = elsewhere.similarity(arrays)
    >>> result.elsewhere
    <similarity of arrays: layer 1, object 4, y 1, x 3, ...>
    >>> list(result.elsewhere.table(variables=["cosine_G_away"]).columns[:2])
    ['variable', 'layer']
    """

    def __init__(self, result: xarray.Dataset) -> None:
        self._given = result

    @property
    def _result(self) -> xarray.Dataset:
        """The result, with its attributes as Python holds them: files have texts of JSON."""
        decode = _later("elsewhere.storage.results:from_attribute")
        result = self._given.copy()
        result.attrs = {key: decode(value) for key, value in self._given.attrs.items()}
        return result

    @property
    def notes(self) -> list[str]:
        """The doubts under which the result was computed."""
        return notes_of(self._result)

    def plot(self, kind: str | None = None, *others: xarray.Dataset, **options: Any) -> Figure:
        """Draw the result as ``elsewhere figure`` does.

        Parameters
        ----------
        kind
            The kind of figure; by default that of this kind of result.
        others
            More results, for figures that have a panel for each.
        options
            ``layers``, ``quantities``, ``at``, ``width``, ...: see :func:`elsewhere.figures.draw`.

        Raises
        ------
        InputError, UnknownNameError
            What cannot be drawn of it.
        """
        figure: Figure = _later("elsewhere.figures:draw")(self._result, kind, *others, **options)
        return figure

    def table(
        self, *, variables: Sequence[str] | None = None, trials: bool = False
    ) -> pandas.DataFrame:
        """Return the result as a tidy table, as ``elsewhere table`` writes it.

        Parameters
        ----------
        variables
            Only these; by default all.
        trials
            Of accuracy or probes: a row for each trial.
        """
        if trials:
            table: pandas.DataFrame = _later("elsewhere.training:trial_table")(self._result)
            return table
        table = _later("elsewhere.storage:tidy_table")(self._result, variables)
        return table

    def report(self, out: str | Path = "report.html", **options: Any) -> Path:
        """Write a report of this result alone as ``elsewhere report`` does; return its path.

        Parameters
        ----------
        out
            The HTML file to write.
        options
            ``title``, ``overwrite``: as ``elsewhere report`` takes them.

        Raises
        ------
        InputError
            This installation makes no reports.
        ExistsError
            The file exists and `overwrite` is not given.
        """
        write = _later("elsewhere.calls:report")
        with tempfile.TemporaryDirectory(prefix="elsewhere-") as folder:
            _later("elsewhere.storage:save_result")(self._result, Path(folder) / "result.nc")
            title = result_words(self._result).strip("<>").partition(":")[0]
            path: Path = write(folder, out=out, **{"title": title, **options})
        return path

    def __repr__(self) -> str:
        return result_words(self._result)

    def _repr_html_(self) -> str:
        return result_page(self._result)


def _later(target: str) -> Any:
    """Return what ``module:name`` is, imported when it is asked for."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _show_figures() -> None:
    """Let a notebook show figures that pyplot does not know of: else it shows their size only.

    Where pyplot is imported, what it registers takes this one's place.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None and hasattr(shell, "kernel"):
        formatter = shell.display_formatter.formatters["image/png"]
        if "matplotlib.figure.Figure" not in formatter:
            formatter.for_type_by_name("matplotlib.figure", "Figure", _png)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100, bbox_inches="tight")
    return file.getvalue()


_show_figures()

"""What commands print: data as tables or JSON to standard output, the rest to standard error."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import math
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from elsewhere.errors import InputError, visible
from elsewhere.forms import beside_main, layer_forms, layer_labels, network_name, weights_name
from elsewhere.logs import get_logger
from elsewhere.notes import news_of, notes_of
from elsewhere.types import COMPARED, format_bytes, stem_of

if TYPE_CHECKING:
    import xarray

    from elsewhere.protocols import Progress
    from elsewhere.recording import Plan

Dataset = TypeVar("Dataset", bound="xarray.Dataset")


logger = get_logger(__name__)


@dataclass(frozen=True)
class FunctionCall:
    """A command that runs as a function of Python, and prints nothing.

    Parameters
    ----------
    line
        The command line that does the same.
    progress
        What is called with what is done and what there is to do; or whether a bar is shown, by
        default in notebooks only.
    """

    line: str
    progress: Progress | bool | None


_call: ContextVar[FunctionCall | None] = ContextVar("call", default=None)


@contextlib.contextmanager
def as_function(line: str, progress: Progress | bool | None) -> Iterator[None]:
    """Run what is within as a function of Python; see :class:`FunctionCall`."""
    token = _call.set(FunctionCall(line, progress))
    try:
        yield
    finally:
        _call.reset(token)


def duration(seconds: float) -> str:
    """Return seconds in words."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


LONGEST = 8000
"""Characters of a message that are printed, at most."""


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number and its noun.

    Examples
    --------
    >>> counted(1, "layer"), counted(2, "category", "categories")
    ('1 layer', '2 categories')
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


def _echo(text: str) -> None:
    if _call.get() is None:  # a function of Python returns its data
        typer.echo(text)


def put(text: str) -> None:
    """Print a line of data to standard output."""
    _echo(visible(text))


def put_text(text: str) -> None:
    """Print a text of several lines of our own to standard output."""
    _echo("\n".join(map(visible, text.removesuffix("\n").split("\n"))))


def say(text: str) -> None:
    """Print a message, one line, to standard error; the middle of an endless one is left out.

    What runs as a function of Python logs it.
    """
    more = len(text) - LONGEST
    if more > 0:  # what a file calls something may have millions of characters
        half = LONGEST // 2
        text = f"{text[:half]} ... ({more} characters are left out) ... {text[-half:]}"
    if _call.get() is None:
        typer.echo(visible(text), err=True)
    else:
        logger.info(visible(text))


class LossyStream:
    """A text stream whose writes may fail: what cannot be printed (a terminal that was closed, a
    full disk) is dropped, and the work goes on."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write what can be written."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is waiting, if that is possible."""
        with contextlib.suppress(OSError):
            self._stream.flush()


_logged: set[str] = set()
"""What was said by the log, while the command ran: `print_notes` does not repeat it."""


class VisibleFormatter(logging.Formatter):
    """Log messages on one line each."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message, visible."""
        _logged.add(record.getMessage())
        return visible(super().format(record))


def print_json(value: Any) -> None:
    """Print a value as JSON, in which what is not finite is null."""
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    if not text.replace("\n", "").isprintable():  # JSON escapes some, but not all
        text = "".join(c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text)
    _echo(text)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(rows: list[dict[str, Any]], right: tuple[str, ...] = ()) -> None:
    """Print rows of equal keys as aligned columns, whole even where the terminal is narrow."""
    keys = list(rows[0]) if rows else []
    texts = [[visible(str(row[key])) for key in keys] for row in rows]
    words = [_heading(key) for key in keys]
    deep = max(map(len, words), default=0)
    heads = [
        [lines[at - deep] if at >= deep - len(lines) else "" for lines in words]
        for at in range(deep)
    ]
    widths = [max(len(t) for t in column) for column in zip(*heads, *texts, strict=True)]
    for line in [*heads, *texts]:
        cells = [
            text.rjust(width) if key in right else text.ljust(width)
            for key, text, width in zip(keys, line, widths, strict=True)
        ]
        put("  ".join(cells).rstrip())


def _heading(key: str) -> list[str]:
    """Return the lines of a column's heading: what is compared is said in words."""
    return re.sub(r"(object,?) ", r"\1\n", COMPARED.get(key, key)).split("\n")


def short(value: Any) -> Any:
    """Return a number, or an interval, at three decimals."""
    if isinstance(value, list):
        return f"[{value[0]:.3f}, {value[1]:.3f}]"
    return f"{value:.3f}" if isinstance(value, float) else value


def print_numbers(rows: list[dict[str, Any]], right: tuple[str, ...]) -> None:
    """Print rows as a table, numbers and intervals at three decimals."""
    print_table([{key: short(value) for key, value in row.items()} for row in rows], right=right)


def command_line() -> str:
    """Return the command that runs, or that does what is called from Python, as files keep it."""
    if (call := _call.get()) is not None:
        return call.line
    return shlex.join(["elsewhere", *sys.argv[1:]])


def stamped(result: Dataset) -> Dataset:
    """Return a result that says by which command it was made."""
    return result.assign_attrs(command=command_line())


def print_notes(*holders: Any, again: bool = False) -> None:
    """Print the doubts under which a result, or whatever else has notes, was computed.

    `again` says that it was made before: see :func:`elsewhere.notes.news_of`.
    """
    for note in news_of(*holders, again=again):
        if note not in _logged:
            say(f"note: {note}")


def print_rows(rows: list[dict[str, Any]], result: Any) -> None:
    """Print the rows of a result as JSON, each with the notes of the result."""
    print_json([{**row, "notes": notes_of(result)} for row in rows])


def called(model: Any) -> str:
    """Return what a network and its weights are called."""
    facts = {"model": model.name, "model_arguments": model.arguments, "weights": model.weights}
    return f"{network_name(facts)} ({weights_name(facts)})"


def layer_columns(result: Any, place: int, *, as_json: bool) -> dict[str, str]:
    """Return what a row says of a layer: its label, or for a program its name and its form."""
    if as_json:
        return {"layer": str(result["layer"].values[place]), "kept": layer_forms(result)[place]}
    return {"layer": layer_labels(result)[place]}


def print_similarity(result: Any, *, as_json: bool) -> None:
    """Print what a similarity result says of each layer."""
    stem = stem_of(result.attrs)
    names = {
        name: f"{stem}{key}"
        for name, key in (
            ("similarity", "_away"),
            ("baseline", "_baseline_away"),
            ("baseline_same", "_baseline_same_away"),
            ("G", "_G_away"),
            ("zero_share", "_zero_share"),
        )
    }
    rows = []
    for place, measured in enumerate(result["measure"].values):
        row: dict[str, Any] = layer_columns(result, place, as_json=as_json)
        row["measure"] = str(measured)
        row |= {name: float(result[key][place]) for name, key in names.items()}
        row["G_interval"] = [float(v) for v in result[f"{stem}_G_away_interval"][place]]
        row |= over_layers(result, "G", names["G"], place)
        rows.append(row)
    print_notes(result)
    if as_json:
        print_rows(rows, result)
        return
    print_layers(rows, {"G": ("G_band", "G_step", "G_step_band")}, beside_main(result))


def over_layers(result: Any, name: str, variable: str, place: int) -> dict[str, Any]:
    """Return what holds for all layers together, of one layer, under the measure's name.

    Nothing where the variable has no band.
    """
    step = f"{variable.removesuffix('_away')}_step"
    if f"{variable}_band" not in result.data_vars:
        return {}
    return {
        f"{name}_band": [float(v) for v in result[f"{variable}_band"].values[place]],
        f"{name}_step": float(result[step].values[place]),
        f"{name}_step_band": [float(v) for v in result[f"{step}_band"].values[place]],
    }


def print_layers(
    rows: list[dict[str, Any]], together: dict[str, tuple[str, ...]], beside: Collection[int] = ()
) -> None:
    """Print a row per layer, and what holds for several layers together in tables of its own.

    Rows are texts, numbers and intervals by name, first the layer; `together` are, for each
    measure, the names that its own table has; those `beside` the main branch have no steps.
    """
    shown = [{key: short(value) for key, value in row.items()} for row in rows]
    apart = {key for keys in together.values() for key in keys}
    main = [place for place in range(len(shown)) if place not in beside]
    for place in [*beside, *main[:1]]:  # no layer comes before the first, from which a step goes
        shown[place] |= {key: "-" for key in apart if key.endswith(("_step", "_step_band"))}
    tables = [tuple(key for key in (shown[0] if shown else ()) if key not in apart)]
    if len(rows) > 1:
        tables += [("layer", *keys) for keys in together.values()]
    for chosen in tables:
        print_table([{key: row[key] for key in chosen} for row in shown], right=chosen[1:])


def print_plan(cost: Plan) -> None:
    """Print what a recording will cost."""
    rows = [
        {
            "layer": layer.name,
            "kept": layer.kept,
            "raw": format_bytes(layer.raw_bytes),
            "stored, about": format_bytes(layer.stored_bytes),
        }
        for layer in cost.layers
    ]
    print_table(rows, right=("raw", "stored, about"))
    grid = f"{counted(cost.n_objects, 'object')} x {counted(cost.n_positions, 'location')}"
    put(f"{grid}: {cost.n_images} images")
    put(f"raw: {cost.raw_bytes} bytes ({format_bytes(cost.raw_bytes)})")
    put(f"stored: about {format_bytes(cost.stored_bytes)}")
    put(f"disk while merging: about {format_bytes(cost.room_bytes)}")
    put(f"time: about {duration(cost.seconds)}, {counted(cost.n_sweeps, 'sweep')}")
    put(f"memory: about {format_bytes(cost.memory_bytes)}")
    if cost.multiply_adds:
        put(f"multiply-adds: {cost.multiply_adds:.3g}")


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse an output that is there, before anything is computed."""
    from elsewhere.storage.files import check_output as check

    check(path, overwrite=overwrite)


OUTPUTS = {"--out", "--similarity", "--table", "--trials", "--readout"}


def check_different(given: Mapping[str, object]) -> None:
    """Refuse an output that is another one, or what is read, by the names of the options."""
    named = [
        (name, path)
        for name, values in given.items()
        for value in (values if isinstance(values, list | tuple) else [values])
        if (path := _named_file(value)) is not None
    ]
    for (first, path), (second, other) in itertools.combinations(named, 2):
        if {first, second} & OUTPUTS and os.path.realpath(path) == os.path.realpath(other):
            shown = path if first in OUTPUTS else other
            raise InputError(f"{first} and {second} are both {shown}; expected two files")


def _named_file(value: object) -> Path | None:
    """Return the file that an option names; a text may also be something else."""
    if not isinstance(value, str):
        return value if isinstance(value, Path) else None
    return next((Path(v) for v in (value, value.partition(":")[2]) if os.path.isfile(v)), None)


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    module = sys.modules.get("IPython")
    return module is not None and hasattr(module.get_ipython(), "kernel")


@contextlib.contextmanager
def bar(what: str, *, note: bool = False) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar with a rate, the time left and, if wanted, a note.

    It stands on standard error, or below the cell of a notebook. What runs as a function of Python
    says whether there is one: see :class:`FunctionCall`.
    """
    call = _call.get()
    wanted = True if call is None else call.progress
    if callable(wanted):
        told = wanted

        def tell(done: int, total: int, text: str = "") -> None:
            told(done, total)

        yield tell
        return
    if not (in_notebook() if wanted is None else wanted):
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    ]
    if note:
        columns.append(TextColumn("{task.fields[note]}", markup=False))
    shown = Progress(*columns, console=Console(stderr=True))
    task = shown.add_task(what, total=None, rate="", note="")
    view: _Cell | Progress = _Cell(shown) if in_notebook() else shown

    def update(done: int, total: int, text: str = "") -> None:
        elapsed = shown.tasks[0].elapsed or 0.0
        rate = f"{done / elapsed:.1f}/s" if elapsed > 0 else ""
        shown.update(task, completed=done, total=total, rate=rate, note=visible(text))
        view.start()  # not before there is something to show: what is refused has no bar

    try:
        yield update
    finally:
        if isinstance(view, _Cell) or shown.live.is_started:
            view.stop()


class _Cell:
    """A bar of rich below a cell of a notebook.

    Rich's own way needs ipywidgets; a display that is updated needs nothing, and stays readable in
    a file that was saved.
    """

    EVERY = 0.2
    """Seconds between two pictures of it, at least."""
    WIDTH = 140
    """Characters of a line: where a cell has fewer, it can be scrolled."""

    def __init__(self, shown: Any) -> None:
        self._shown, self._at = shown, 0.0
        self._handle: Any = None

    def start(self) -> None:
        """Show the bar, or how far it is by now."""
        if (now := time.monotonic()) - self._at < self.EVERY:
            return
        self._at = now
        if self._handle is None:
            import IPython.display

            show: Any = IPython.display.display
            self._handle = show(self._picture(), raw=True, display_id=True)
        else:
            self._handle.update(self._picture(), raw=True)

    def stop(self) -> None:
        """Show how far the bar came in the end."""
        if self._handle is not None:
            self._handle.update(self._picture(), raw=True)

    def _picture(self) -> dict[str, str]:
        from rich.console import Console

        console = Console(file=io.StringIO(), record=True, width=self.WIDTH, force_jupyter=False)
        console.print(self._shown.get_renderable())
        lines = '<pre style="white-space:pre;overflow-x:auto;line-height:normal">{code}</pre>'
        html = console.export_html(inline_styles=True, code_format=lines, clear=False)
        return {"text/plain": console.export_text().rstrip(), "text/html": html}


@contextlib.contextmanager
def progress(what: str) -> Iterator[Progress]:
    """Show a bar for counts of images."""
    with bar(what) as update:
        yield lambda done, total: update(done, total, "")

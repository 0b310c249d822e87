"""What commands print: data as tables or JSON to standard output, the rest to standard error."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from elsewhere.protocols import Progress


def duration(seconds: float) -> str:
    """Return seconds in words."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def say(text: str) -> None:
    """Print a message to standard error."""
    typer.echo(text, err=True)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(rows: list[dict[str, Any]], right: tuple[str, ...] = ()) -> None:
    """Print rows of equal keys as aligned columns, whole even where the terminal is narrow."""
    keys = list(rows[0]) if rows else []
    texts = [[str(row[key]) for key in keys] for row in rows]
    widths = [max(len(t) for t in column) for column in zip(keys, *texts, strict=True)]
    for line in [keys, *texts]:
        cells = [
            text.rjust(width) if key in right else text.ljust(width)
            for key, text, width in zip(keys, line, widths, strict=True)
        ]
        typer.echo("  ".join(cells).rstrip())


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse an output that is there, before anything is computed."""
    from elsewhere.storage.files import check_output as check

    check(path, overwrite=overwrite)


@contextlib.contextmanager
def bar(what: str, *, note: bool = False) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar with a rate, the time left and, if wanted, a note on standard error."""
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
        columns.append(TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(what, total=None, rate="", note="")

        def update(done: int, total: int, text: str = "") -> None:
            elapsed = shown.tasks[0].elapsed or 0.0
            rate = f"{done / elapsed:.1f}/s" if elapsed > 0 else ""
            shown.update(task, completed=done, total=total, rate=rate, note=text)

        yield update


@contextlib.contextmanager
def progress(what: str) -> Iterator[Progress]:
    """Show a bar for counts of images."""
    with bar(what) as update:
        yield lambda done, total: update(done, total, "")

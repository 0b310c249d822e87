"""Commands that look after files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elsewhere.errors import InputError
from elsewhere.options import JsonOption
from elsewhere.terminal import print_json, put, say

if TYPE_CHECKING:
    from elsewhere.options import KeepOptions

WorkersOption = Annotated[
    int, typer.Option("--workers", help="Local processes that share the work.")
]
SchedulerOption = Annotated[
    str | None,
    typer.Option("--scheduler", help="A Dask scheduler whose workers share it: tcp://host:port."),
]


def check_sharing(workers: int, scheduler: str | None, kept: KeepOptions | None = None) -> None:
    """Refuse ways of sharing the work that do not go together."""
    if workers < 1:
        raise InputError(f"--workers must be at least 1; got {workers}")
    if workers > 1 and scheduler is not None:
        raise InputError("--workers are local processes, --scheduler is a cluster; give one")
    shared = workers > 1 or scheduler is not None
    if shared and kept is not None and kept.measure is not None:
        raise InputError(
            "--similarity needs the sweep in one process; record with workers first, then "
            "`elsewhere similarity` the recording"
        )


def verify(
    path: Annotated[
        Path,
        typer.Argument(help="A recording, result, readout, checkpoint, run or reproduction."),
    ],
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", help="Seconds to give up after; default: by the file's size."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read everything of a file or folder and name what is damaged; exit 1 if something is."""
    from elsewhere.storage import verify as verify_recording
    from elsewhere.storage.verification import doubts, summary

    if timeout is not None and timeout <= 0:
        raise InputError(f"--timeout must be above 0 seconds; got {timeout:g}")
    found = verify_recording(path, timeout=timeout)
    if as_json:
        described = dataclasses.asdict(found) | {"path": str(path), "ok": found.ok}
        print_json(described)
    else:
        for damage in found.damages:
            put(str(damage))
    for doubt in doubts(found):
        say(doubt)
    found.check()
    if not as_json:
        put(summary(found))

"""The commands that write a report and check one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from elsewhere.errors import InputError
from elsewhere.options import JsonOption, OverwriteOption
from elsewhere.terminal import check_output, counted, print_json, put, say


def report(
    directories: Annotated[
        list[Path],
        typer.Argument(help="Directories with results; several are compared.", metavar="DIR"),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="The .html file to write; of --split, the folder.")
    ] = None,
    split: Annotated[
        bool,
        typer.Option("--split", help="Write a folder with all data; one file may be thinned."),
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Show it at an address of this computer only.")
    ] = False,
    port: Annotated[
        int, typer.Option("--port", help="Of --serve; 0: one that is free.", min=0, max=65535)
    ] = 0,
    title: Annotated[
        str | None, typer.Option("--title", help="A title instead of the usual one.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write one HTML file that tells what results say and lets a reader explore; no network."""
    from elsewhere.report import (
        check_folder,
        make_report,
        make_server,
        save_report,
        serve_report,
    )

    if out is None and not serve:
        expected = "a folder" if split else "an .html file"
        raise InputError(f"--out is missing; expected {expected}, or --serve")
    if out is not None and split:
        if out.suffix in _PAGES:
            raise InputError(f"--out is {out}; --split writes a folder: leave {out.suffix} out")
        check_folder(out, overwrite=overwrite)
    elif out is not None:
        if out.suffix not in _PAGES:
            raise InputError(
                f"--out is {out}; expected a name that ends in .html, or --split for a folder"
            )
        check_output(out, overwrite)
    pages: dict[str, bytes] = {}
    server = make_server(pages, port) if serve else None  # a port that is taken is told at once
    pages |= make_report(directories, title=title, split=split)
    if out is not None:
        save_report(pages, out, split=split, overwrite=overwrite)
        say(f"wrote {out / 'index.html' if split else out}")
    if server is not None:
        serve_report(server, ready=put)


_PAGES = (".html", ".htm")


def check(
    page: Annotated[Path, typer.Argument(help="A report: file or folder.", metavar="REPORT")],
    data: Annotated[
        list[Path],
        typer.Option("--data", help="The directory that it was made from; repeat for several."),
    ],
    numbers: Annotated[int, typer.Option("--numbers", help="How many are drawn.")] = 100,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare random numbers of a report with the data; exit 1 where one differs."""
    from elsewhere.report import check_report

    found = check_report(page, data, numbers=numbers, seed=seed)
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        for line in found.different:
            say(f"different: {line}")
        put(
            f"{found.equal} of {counted(found.drawn, 'number')} are equal to those in the data; "
            f"{found.computed} of them were computed anew as well"
        )
    if found.equal < found.drawn:
        raise typer.Exit(1)

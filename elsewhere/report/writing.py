"""Writing a report: one file, or a folder."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from elsewhere.errors import ExistsError, StorageError
from elsewhere.report.catalogue import Catalogue
from elsewhere.report.material import gather
from elsewhere.report.packing import INDEX
from elsewhere.report.page import render
from elsewhere.report.story import fitting, tell
from elsewhere.storage import save_output
from elsewhere.storage.files import TEMPORARY, storage_errors, synchronise_folder

_MARK = b'<meta name="generator" content="elsewhere">'


def write_report(
    directories: Sequence[str | Path],
    out: str | Path,
    *,
    title: str | None = None,
    split: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a page that tells what the results in some directories say, and lets a reader explore.

    Parameters
    ----------
    directories
        With results, such as `elsewhere reproduce` leaves; two or more are compared.
    out
        An ``.html`` file, which needs no network and no other file; or, with `split`, a folder.
    title
        By default the directories' names.
    split
        Whether a folder is written, of a page and the data that it loads when they are asked for:
        nothing is left out of it. A single file is thinned where it would be too large.
    overwrite
        Whether an existing file, or folder of a report, is replaced.

    Raises
    ------
    InputError
        No result is there.
    ExistsError
        The file exists and `overwrite` is not given, or a folder that holds anything else.
    StorageError
        A directory is missing, or the file cannot be written.
    """
    out = Path(out)
    if split:
        check_folder(out, overwrite=overwrite)
    pages = make_report(directories, title=title, split=split)
    save_report(pages, out, split=split, overwrite=overwrite)
    return out / INDEX if split else out


def make_report(
    directories: Sequence[str | Path], *, title: str | None = None, split: bool = False
) -> dict[str, bytes]:
    """Return what :func:`write_report` writes: the page and the files beside it, by name."""
    folders = [Path(each) for each in directories]
    material = fitting(gather(folders))
    title = " and ".join(material.directories) if title is None else title
    sections = [section.finish() for section in tell(material)]
    catalogue = Catalogue(material, whole=split)
    if not any(file["fields"] for file in catalogue.files):  # there is no explorer to say it
        sections[-1].notes += catalogue.notes
    return render(material, catalogue, sections, title, split=split)


def save_report(
    pages: Mapping[str, bytes], out: Path, *, split: bool = False, overwrite: bool = False
) -> None:
    """Write a report that was made to a file, or if `split` to a folder; whole or not at all."""
    if not split:
        save_output(out, pages[INDEX], overwrite=overwrite)
        return
    with storage_errors(out):
        whole = out.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
        old = whole.with_suffix(".old")
        try:
            for name, data in pages.items():
                path = whole / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            check_folder(out, overwrite=overwrite)
            with contextlib.suppress(FileNotFoundError):
                os.rename(out, old)
            os.rename(whole, out)
            synchronise_folder(out.parent)
        finally:
            for folder in (whole, old):
                shutil.rmtree(folder, ignore_errors=True)


def check_folder(out: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder that cannot be written, or that holds anything but a report."""
    with storage_errors(out):
        if not out.parent.is_dir():
            raise StorageError(f"the folder {out.parent} does not exist; create it first")
        if out.is_symlink() or (out.exists() and not out.is_dir()):
            raise ExistsError(f"{out} exists and is no folder; choose another name for the report")
        if not out.is_dir() or not (there := {path.name for path in out.iterdir()}):
            return
        if not (there <= {INDEX, "data"} and INDEX in there and _is_ours(out / INDEX)):
            raise ExistsError(
                f"{out} holds other files than a report; choose another name for its folder"
            )
        if not overwrite:
            raise ExistsError(f"{out} exists already; choose another name or pass --overwrite")


def _is_ours(page: Path) -> bool:
    with page.open("rb") as file:
        return _MARK in file.read(2**16)

"""Writing a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from elsewhere.report.catalogue import Catalogue
from elsewhere.report.material import gather
from elsewhere.report.page import default_title, render
from elsewhere.report.story import tell
from elsewhere.storage import save_output


def write_report(
    directories: Sequence[str | Path],
    out: str | Path,
    *,
    title: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a page that tells what the results in some directories say, and lets a reader explore.

    Parameters
    ----------
    directories
        With results, such as `elsewhere reproduce` leaves; two or more are compared.
    out
        An ``.html`` file. It needs no network and no other file.
    title
        By default the directories' names.
    overwrite
        Whether an existing file is replaced.

    Raises
    ------
    InputError
        No result is there.
    ExistsError
        The file exists and `overwrite` is not given.
    StorageError
        A directory is missing, or the file cannot be written.
    """
    page = make_report(directories, title=title)
    save_output(Path(out), page.encode(), overwrite=overwrite)
    return Path(out)


def make_report(directories: Sequence[str | Path], *, title: str | None = None) -> str:
    """Return the page that :func:`write_report` writes."""
    folders = [Path(each) for each in directories]
    material = gather(folders)
    title = default_title(folders) if title is None else title
    return render(material, Catalogue(material), tell(material), title)

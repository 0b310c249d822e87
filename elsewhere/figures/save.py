"""Writing a figure to a file: whole or not at all, and the same bytes each time."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import stat
import uuid
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from elsewhere.errors import ExistsError, InputError, StorageError

# Dates are left out so that the same figure gives the same file.
_METADATA: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        ".pdf": {"CreationDate": None, "ModDate": None},
        ".png": {},
        ".svg": {"Date": None},
    }
)
FIGURE_EXTENSIONS = tuple(sorted(_METADATA))


def save_figure(
    figure: Figure, path: str | os.PathLike[str], *, dpi: float = 200, overwrite: bool = False
) -> Path:
    """Write `figure` in the format that the extension of `path` names.

    Parameters
    ----------
    figure
        A matplotlib figure.
    path
        Ends in ``.pdf``, ``.png`` or ``.svg``; its folder exists.
    dpi
        Dots per inch, of a PNG and of pictures inside an SVG or PDF.
    overwrite
        Replace a file that is there already.

    Returns
    -------
    The path written to.

    Raises
    ------
    InputError
        An extension that is not known, or a resolution that is not positive.
    ExistsError
        The file is there and `overwrite` is false.
    StorageError
        The file cannot be written.

    Examples
    --------
    >>> save_figure(Figure(), "figure.gif")
    Traceback (most recent call last):
    ...
    elsewhere.errors.InputError: cannot write figure.gif: unknown extension '.gif'; expected ...
    """
    target = Path(path)
    extension = target.suffix.lower()
    if not isinstance(figure, Figure):
        raise InputError(
            f"cannot write {target}: expected a matplotlib Figure, got {type(figure).__name__}; "
            "of Axes, pass ax.figure"
        )
    if extension not in _METADATA:
        raise InputError(
            f"cannot write {target}: unknown extension {extension!r}; "
            f"expected one of {', '.join(FIGURE_EXTENSIONS)}"
        )
    if not 0 < dpi <= 2400:
        raise InputError(f"cannot write {target}: dpi is {dpi}; expected above 0 and at most 2400")
    if target.exists() and not overwrite:
        raise ExistsError(f"{target} exists already; choose another name or allow overwriting")

    buffer = io.BytesIO()
    settings: dict[Any, Any] = {
        "pdf.fonttype": 42,
        "savefig.bbox": None,
        "savefig.facecolor": "auto",
        "savefig.transparent": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "elsewhere",
    }
    with matplotlib.rc_context(settings):
        figure.savefig(buffer, format=extension[1:], dpi=dpi, metadata=dict(_METADATA[extension]))

    # Named and locked as files in the making are everywhere: the next command that writes to this
    # folder removes one that a killed process left.
    temporary = target.with_name(f".elsewhere-{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            with contextlib.suppress(OSError):  # some file systems know no locks
                fcntl.flock(file, fcntl.LOCK_EX)
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
            if overwrite:
                with contextlib.suppress(FileNotFoundError):
                    temporary.chmod(stat.S_IMODE(target.stat().st_mode))
                os.replace(temporary, target)
            else:
                os.link(temporary, target)  # a file that came into being meanwhile stays
    except FileExistsError as error:
        raise ExistsError(
            f"{target} exists already; choose another name or allow overwriting"
        ) from error
    except OSError as error:
        raise StorageError(
            f"cannot write {target}: {error.strerror or error}; check the folder and free space"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return target

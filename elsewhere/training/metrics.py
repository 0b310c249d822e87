"""What training reports: JSON lines, and TensorBoard where it is asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from elsewhere.errors import InputError, StorageError
from elsewhere.storage.files import storage_errors


@dataclass(frozen=True)
class Report:
    """How training stands.

    Parameters
    ----------
    phase, phase_index, step, steps
        After `step` of at most `steps` steps of the phase.
    loss, train_accuracy
        Means over the latest steps; None before the first.
    accuracy_on, accuracy_off
        Of the probe's exemplars at trained locations and at others; None where there are none.
    learning_rate
        Of the latest step.
    """

    phase: str
    phase_index: int
    step: int
    steps: int
    loss: float | None
    train_accuracy: float | None
    accuracy_on: float | None
    accuracy_off: float | None
    learning_rate: float


ReportProgress: TypeAlias = Callable[[Report], None]


class MetricsLog:
    """Appends one JSON object a line to a file; what a killed run wrote too much is cut off.

    Parameters
    ----------
    path
        The file.
    size
        How many bytes of it are kept.
    tensorboard
        Whether scalars also go to TensorBoard files beside it.

    Raises
    ------
    StorageError
        The file cannot be written, or is shorter than `size`.
    InputError
        TensorBoard is asked for and not installed.
    """

    def __init__(self, path: Path, *, size: int = 0, tensorboard: bool = False) -> None:
        self.path = path
        self._board: Any = _open_board(path.parent / "tensorboard") if tensorboard else None
        with storage_errors(path):
            self._file = open(path, "ab")  # noqa: SIM115  (closed by close)
            held = self._file.seek(0, os.SEEK_END)
            if held < size:
                self._file.close()
                raise StorageError(
                    f"{path} has {held} bytes, {size} were written; it was changed since: restore "
                    "it, or train in another directory"
                )
            self._file.truncate(size)
            self._file.seek(size)

    def write(self, report: Report) -> None:
        """Append a line."""
        line = json.dumps(asdict(report), allow_nan=False) + "\n"
        with storage_errors(self.path):
            self._file.write(line.encode())
            self._file.flush()
        if self._board is not None:
            for name in ("loss", "train_accuracy", "accuracy_on", "accuracy_off", "learning_rate"):
                value = getattr(report, name)
                if value is not None:
                    self._board.add_scalar(f"{report.phase}/{name}", value, report.step)

    def sync(self) -> int:
        """Make sure that the file is on the disk, and return its size in bytes."""
        with storage_errors(self.path):
            os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_metrics(directory: str | Path) -> list[Report]:
    """Return the metrics of a run, in order.

    Raises
    ------
    StorageError
        They are missing or damaged.
    """
    path = Path(directory) / "metrics.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [Report(**json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise StorageError(f"cannot read the metrics {path}: {error}") from error


def _open_board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise InputError(
            "TensorBoard files were asked for, but tensorboard is not installed; "
            "pip install 'elsewhere[tensorboard]', or leave the option out"
        ) from error
    return SummaryWriter(str(folder))

"""What training reports: JSON lines, and TensorBoard where it is asked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from elsewhere.errors import InputError, StorageError, TrainingError
from elsewhere.storage.documents import LineSeals, read_lines, tell_unsealed
from elsewhere.storage.files import open_inside, refuse_link, storage_errors
from elsewhere.training.curriculum import Phase
from elsewhere.training.toml import TomlSource, convert

CHECK = 10
"""Every so many steps the losses are looked at; on a GPU that is a synchronisation."""


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
    accuracy_on_error, accuracy_off_error
        Standard errors of these; None in reports of older versions.
    training_mode, evaluation_mode
        Accuracies on the latest presentations of training, see :class:`Card`.
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
    accuracy_on_error: float | None = None
    accuracy_off_error: float | None = None
    training_mode: float | None = None
    evaluation_mode: float | None = None


ReportProgress: TypeAlias = Callable[[Report], None]


class MetricsLog:
    """Appends one JSON object a line to a file; what a killed run wrote too much is cut off.

    Of the file `size` bytes are kept. If `tensorboard`, scalars also go to files beside it.

    Raises
    ------
    StorageError
        The file cannot be written, or is shorter than `size`.
    InputError
        TensorBoard is asked for and not installed.
    """

    def __init__(self, path: Path, *, size: int = 0, tensorboard: bool = False) -> None:
        self.path = path
        board = path.parent / "tensorboard"
        refuse_link(board)
        self._board: Any = _open_board(board) if tensorboard else None
        self._seals = LineSeals()
        with storage_errors(path):
            self._file = open_inside(path, os.O_RDWR | os.O_CREAT, "rb+")
            try:
                held = self._file.read(size)
                if len(held) < size:
                    raise StorageError(
                        f"{path} has {len(held)} bytes, {size} were written; it was changed since: "
                        "restore it, or train in another directory"
                    )
                for _ in self._seals.decode(held, path):  # what is there is sealed on
                    pass
                self._file.truncate(size)
                self._size = size
            except BaseException:
                self._file.close()
                raise

    def write(self, report: Report) -> None:
        """Append a line."""
        line = self._seals.encode(asdict(report))
        handle, size = self._file.fileno(), self._size
        with storage_errors(self.path):
            try:
                while self._size < size + len(line):
                    written = os.pwrite(handle, line[self._size - size :], self._size)
                    self._size += written
            except OSError:
                with contextlib.suppress(OSError):  # no line that is cut short stays
                    os.ftruncate(handle, size)
                raise
        if self._board is not None:
            for name in ("loss", "train_accuracy", "accuracy_on", "accuracy_off", "learning_rate"):
                value = getattr(report, name)
                if value is not None:
                    self._board.add_scalar(f"{report.phase}/{name}", value, report.step)

    def sync(self) -> int:
        """Make sure that the file is on the disk, and return its size in bytes."""
        with storage_errors(self.path):
            os.fsync(self._file.fileno())
        return self._size

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
    lines = read_lines(path)
    if lines and not lines[-1][1]:
        tell_unsealed(path)
    try:
        return [convert(table, Report, ("metrics",), TomlSource()) for table, _ in lines]
    except InputError as error:
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


def report_steps(steps: int) -> frozenset[int]:
    """Return the steps after which training reports: at most about 40, at least 50 apart."""
    apart = max(50, round(steps / 40 / CHECK) * CHECK)
    return frozenset(range(apart, steps + 1, apart))


def diverged(directory: Path, phase: Phase, step: int, what: str) -> TrainingError:
    """Return the error of a phase that cannot go on, with what is kept of it."""
    folder = directory / "checkpoints"
    kept = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    last = f"the last good checkpoint, {kept[-1].name}, is kept" if kept else "none was kept yet"
    return TrainingError(
        f"phase {phase.name!r} diverged at step {step}: {what}; {last}; lower "
        f"learning_rate (now {phase.learning_rate:g}) or the input's gain"
    )

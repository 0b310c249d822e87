"""Counts what code on a GPU has to be sparing of, on tensors of the CPU.

>>> with counting() as counted:                     # doctest: +SKIP
...     work(tensors)
>>> counted.n_waits, counted.n_uploads, counted.n_launches   # doctest: +SKIP

A *wait* is a call for which the host waits for the device: what crosses to the host (``cpu``,
``item``, ``tolist``, ``bool``), what has a size that only the device knows (``nonzero``, indexing
with a mask), and what copies data of the host in the ordinary way (``torch.tensor``, an index that
is a list or a NumPy array). An *upload* is data of the host that need not be waited for
(``torch.from_numpy``, of which ``to(device, non_blocking=True)`` is made). A *launch* is a call
that is no view.

With the fixture ``on_device`` tensors of the CPU take the way of those of a GPU through measures.
"""

import contextlib
import traceback
from collections import Counter
from dataclasses import dataclass, field
from unittest import mock

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CALLS = {
    "cpu",
    "tolist",
    "__array__",
    "argwhere",
    "tensor",
    "as_tensor",
    "asarray",
    "new_tensor",
    "synchronize",
}
"""Functions for which the host waits, by the name that they are called by."""

OPERATIONS = {
    "_local_scalar_dense",  # item, float, int, bool, whoever asks
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
    "equal",
}
"""Operations for which the host waits, whatever calls them."""


@dataclass
class Counted:
    """What was counted, by the function's name and by the line of the package that called it."""

    waits: Counter = field(default_factory=Counter)
    uploads: Counter = field(default_factory=Counter)
    launches: Counter = field(default_factory=Counter)
    lines: Counter = field(default_factory=Counter)

    def wait(self, name):
        """Count a wait, and the line that it is in."""
        self.waits[name] += 1
        self.lines[f"{name} {_line()}"] += 1

    n_waits = property(lambda self: self.waits.total())
    n_uploads = property(lambda self: self.uploads.total())
    n_launches = property(lambda self: self.launches.total())


def _waits_for_index(index):
    """Return whether indexing asks the device how many there are, or the host for places."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(
        isinstance(part, list | np.ndarray)
        or (isinstance(part, torch.Tensor) and part.dtype in (torch.bool, torch.uint8))
        for part in parts
    )


def _goes_home(args, kwargs):
    """Return whether ``to`` is asked for the host by name; a tensor's own device may be one."""
    return "cpu" in [each for each in (*args[1:], *kwargs.values()) if isinstance(each, str)]


class _Functions(TorchFunctionMode):
    def __init__(self, counted):
        super().__init__()
        self.counted = counted

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", str(function))
        waits = name in CALLS
        if name in ("as_tensor", "asarray"):  # what is a tensor is not copied
            waits = not isinstance(args[0], torch.Tensor)
        elif name in ("__getitem__", "__setitem__"):
            waits = _waits_for_index(args[1])
        elif name == "to":
            waits = _goes_home(args, kwargs)
        if waits:
            self.counted.wait(name)
        return function(*args, **kwargs)


class _Operations(TorchDispatchMode):
    def __init__(self, counted):
        super().__init__()
        self.counted = counted

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        returned = function._schema.returns
        alias = returned[0].alias_info if returned else None
        if alias is None or alias.is_write:
            self.counted.launches[name] += 1
        if name in OPERATIONS:
            self.counted.wait(name)
        return function(*args, **(kwargs or {}))


def _line():
    """Return the innermost line of the package that is running."""
    for frame in reversed(traceback.extract_stack()):
        if "/elsewhere/" in frame.filename and "/tests/" not in frame.filename:
            return f"{frame.filename.rpartition('/elsewhere/')[2]}:{frame.lineno}"
    return "outside"


@contextlib.contextmanager
def counting():
    """Count the waits, uploads and launches of what runs inside."""
    counted, upload = Counted(), torch.from_numpy

    def from_numpy(array):
        counted.uploads["from_numpy"] += 1
        return upload(array)

    patch = mock.patch.object(torch, "from_numpy", from_numpy)
    with patch, _Functions(counted), _Operations(counted):
        yield counted

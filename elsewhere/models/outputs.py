"""What modules give: the tensors in an output, and which modules are made of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves


def output_tensors(output: object) -> dict[int | str | None, torch.Tensor]:
    """Return the tensors in a module's `output`, by their key.

    Parameters
    ----------
    output
        A tensor, or a tuple, list or dictionary.

    Returns
    -------
    dict
        One tensor has the key None; several have their place or their name in the output. Sparse
        tensors are made dense, nested ones are left out.

    Examples
    --------
    >>> list(output_tensors((torch.zeros(1), None))), list(output_tensors([torch.zeros(1)] * 2))
    ([None], [0, 1])
    """
    if isinstance(output, torch.Tensor):
        return {} if output.is_nested else {None: _dense(output)}
    items: Any = ()
    if isinstance(output, Mapping):
        items = output.items()
    elif isinstance(output, list | tuple):
        items = enumerate(output)
    found: dict[int | str | None, torch.Tensor] = {
        key if isinstance(key, int) else str(key): _dense(value)
        for key, value in items
        if isinstance(value, torch.Tensor) and not value.is_nested
    }
    return {None: next(iter(found.values()))} if len(found) == 1 else found


def tensors_in(values: Any) -> list[torch.Tensor]:
    """Return the tensors in lists, tuples, dictionaries and what else torch knows of, in order."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def memory_of(tensor: torch.Tensor) -> int:
    """Return where a tensor's memory begins; 0 where that says nothing."""
    try:
        return tensor.untyped_storage().data_ptr() if tensor.numel() else 0
    except (RuntimeError, NotImplementedError):  # sparse, of a subclass
        return 0


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that holds all its values, such as zeros that a sparse one leaves out."""
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


def is_container(module: nn.Module) -> bool:
    """Return whether `module` is made of other modules."""
    return any(True for _ in module.children())

"""A network given back as it was found, and chance that is seeded and then given back.

`untouched` restores attributes, buffers, hooks and modes of a network, whatever ran meanwhile;
`seeded` restores the global generators of torch, NumPy and Python.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import random
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from elsewhere.models.generators import CPU, own_generators, seed_own_generators
from elsewhere.models.memory import Memory

SMALL = 2**18
"""Numbers in a parameter of which a copy is kept; larger ones are taken to be weights, which no
forward pass changes."""

_FIXED = frozenset({bool, int, float, complex, str, bytes, tuple, type(None)})
"""Types of most attributes, within which nothing can be replaced."""


@contextlib.contextmanager
def untouched(module: nn.Module, *, hooks: bool = False) -> Iterator[Snapshot]:
    """Give a network back as it was found, also after an exception.

    Yields
    ------
    Snapshot
        What it was like; :meth:`Snapshot.changed` names what is not.

    Examples
    --------
    >>> network = nn.Sequential(nn.BatchNorm2d(3))
    >>> with untouched(network):
    ...     _ = network(torch.rand(2, 3, 4, 4))
    ...     network[0].note = "added"
    >>> int(network[0].num_batches_tracked), hasattr(network[0], "note")
    (0, False)
    """
    snapshot = Snapshot(module, hooks=hooks)
    try:
        yield snapshot
    finally:
        snapshot.restore()


class Snapshot:
    """Everything that a forward pass, or tracing, can change of a network.

    Attributes are held by reference; of tensors among them, of buffers, of small parameters, of
    arrays and plain containers also the content; so also of what :class:`Memory` finds: generators,
    objects and closures. Closures of its hooks count with `hooks`; they may as well be an
    observer's.
    """

    def __init__(self, module: nn.Module, *, hooks: bool = False) -> None:
        self._memory = Memory(module, hooks=hooks)
        self._parts = [(name, part, dict(vars(part))) for name, part in module.named_modules()]
        self._contents: dict[int, tuple[str, Any, Any]] = {}
        for name, _, attributes in self._parts:
            for key, value in attributes.items():
                self._keep(_join(name, key), value)
                if isinstance(value, dict):  # registered parameters, buffers, modules, hooks
                    for inner, entry in value.items():
                        if isinstance(entry, torch.Tensor):
                            self._keep(_join(name, str(inner)), entry)

    def _keep(self, name: str, value: Any) -> None:
        if type(value) not in _FIXED and id(value) not in self._contents:
            content = _content(value)
            if content is not None:
                self._contents[id(value)] = (name, value, content)

    def changed(self) -> list[str]:
        """Return the dotted names of what is not as it was."""
        found = []
        for name, part, attributes in self._parts:
            now = vars(part)
            for key in {**attributes, **now}:
                same = key in now and key in attributes and now[key] is attributes[key]
                if not same and key != "training":
                    found.append(_join(name, key))
        for name, value, content in self._contents.values():
            if isinstance(value, dict):  # by key: registered buffers have their own names
                stem, _, key = name.rpartition(".")
                stem = stem if key.startswith("_") else name
                keys = [k for k in {**content, **value} if value.get(k) is not content.get(k)]
                found += [_join(stem, str(k)) for k in keys]
            elif not _is_same(value, content):
                found.append(name)
        return list(dict.fromkeys([*found, *self._memory.changed(), *self._memory.outside()]))

    def restore(self) -> None:
        """Give everything back as it was."""
        for _, part, attributes in self._parts:
            now = vars(part)
            for key in [key for key in now if key not in attributes]:
                del now[key]
            for key, value in attributes.items():
                if key not in now or now[key] is not value:
                    now[key] = value
        for _, value, content in self._contents.values():
            if not _is_same(value, content):
                _give_back(value, content)
        self._memory.restore()
        self._memory.restore_outside()


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _content(value: Any) -> Any:
    """Return a copy of what can change within `value`; None where nothing is known to."""
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, torch.Tensor):
        if isinstance(value, nn.Parameter) and value.numel() > SMALL:
            return None
        with contextlib.suppress(RuntimeError, NotImplementedError):  # lazy, meta, quantised
            return value.detach().clone()
        return None
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.copy()
    if isinstance(value, list | deque):
        return list(value)
    if isinstance(value, set | bytearray):
        return copy.copy(value)
    return None


def _is_same(value: Any, content: Any) -> bool:
    if isinstance(value, dict):  # most of them hold no hooks
        return len(value) == len(content) and all(
            key == other and one is two
            for (key, one), (other, two) in zip(value.items(), content.items(), strict=True)
        )
    if isinstance(value, torch.Tensor):
        same = value.shape == content.shape and value.dtype == content.dtype
        return bool(same and torch.equal(value.detach(), content))
    if isinstance(value, list | deque):
        return len(value) == len(content) and all(
            a is b for a, b in zip(value, content, strict=True)
        )
    if isinstance(value, np.ndarray):
        return bool(value.shape == content.shape and value.tobytes() == content.tobytes())
    return bool(value == content)


def _give_back(value: Any, content: Any) -> None:
    if isinstance(value, torch.Tensor):
        how = torch.inference_mode if value.is_inference() else torch.no_grad
        with how():
            if value.shape == content.shape and value.dtype == content.dtype:
                value.copy_(content)
            else:
                value.set_(content)  # resized in place
    elif isinstance(value, np.ndarray):
        value[...] = content
    else:
        value.clear()
        (value.extend if isinstance(value, list | deque | bytearray) else value.update)(content)


def stamp(module: nn.Module) -> str:
    """Return what tells, at little cost, whether a network is still the one that it was.

    Of every tensor some values, of parameters also how often they were written to, and of its
    modules the plain attributes. It is no proof: see :func:`elsewhere.models.observe`.
    """
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        digest.update(f"{name} {type(part).__qualname__}\0".encode())
        tensors = [*part._parameters.items(), *part._buffers.items()]
        for key, value in vars(part).items():
            if isinstance(value, torch.Tensor):
                tensors.append((key, value))
            elif isinstance(value, bool | int | float | str | tuple) and key != "training":
                digest.update(f"{key} {value!r}\0".encode())
        for key, value in tensors:
            if value is not None:
                digest.update(f"{key} {value.device} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(_sample(value))
    return digest.hexdigest()


def _sample(value: torch.Tensor) -> bytes:
    version = 0
    if isinstance(value, nn.Parameter) and not value.is_inference():
        version = value._version
    try:
        flat = value.detach().reshape(-1)
        few = flat[:: max(1, len(flat) // 64)].float().cpu().numpy().tobytes()
    except (RuntimeError, NotImplementedError):  # meta, quantised, lazy
        few = b""
    return few + str(version).encode()


# --- chance


@contextlib.contextmanager
def seeded(seed: int | None, module: nn.Module | None = None) -> Iterator[None]:
    """Seed the global generators, and those that a network holds; then restore them all.

    With None for a seed they are left as they are, and only restored.
    """
    own = [] if module is None else list(generators_of(module))
    states = [generator.get_state() for generator in own]
    device = _device_of(module)
    with own_generators(device):
        if seed is not None:
            seed_own_generators(seed, device)
            for generator in own:
                generator.manual_seed(seed)
        try:
            yield
        finally:
            for generator, state in zip(own, states, strict=True):
                generator.set_state(state)


def generators_of(module: nn.Module) -> Iterator[torch.Generator]:
    """Yield the generators that a network's modules hold as attributes."""
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, torch.Generator):
                yield value


def chance_state(
    module: nn.Module, own: Sequence[torch.Generator] | None = None
) -> tuple[Any, ...]:
    """Return what tells whether anything was drawn from a generator meanwhile.

    `own` are the generators that the network holds, where they are known already.
    """
    device = _device_of(module)
    gpus = []
    if device.type == "cuda":
        gpus.append(torch.cuda.get_rng_state(device).numpy().tobytes())
    drawn: Any = np.random.get_state()  # noqa: NPY002
    held = generators_of(module) if own is None else own
    states = [generator.get_state().numpy().tobytes() for generator in held]
    state = torch.get_rng_state().numpy().tobytes()
    return (state, *gpus, drawn[1].tobytes(), drawn[2], random.getstate(), *states)


def _device_of(module: nn.Module | None) -> torch.device:
    tensors = () if module is None else (*module.parameters(), *module.buffers())
    return next((tensor.device for tensor in tensors), CPU)


def copy_network(module: nn.Module) -> nn.Module:
    """Return a copy of a network, with its hooks, that shares no tensor with it.

    Tensors that the network's own hooks have computed, such as the weights of
    ``torch.nn.utils.weight_norm``, are part of a graph, which ``copy.deepcopy`` refuses: they are
    copied without it, and computed anew by the copy's hooks.
    """
    computed = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
    return copy.deepcopy(module, dict(computed))

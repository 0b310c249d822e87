"""A network with what is needed to use and to name it; devices; wrappers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import torch
from torch import nn

from elsewhere.displays import page, size_of
from elsewhere.errors import InputError, UnknownNameError, visible
from elsewhere.forms import network_name, weights_name
from elsewhere.models.repetition import unrepeated_note
from elsewhere.models.transform import InputTransform
from elsewhere.types import BatchDependent, Precision


@dataclass(frozen=True, eq=False)
class Model:
    """A network in evaluation mode, its input transform, its layers' aliases and its provenance.

    Parameters
    ----------
    name
        What it was asked for by: a zoo name or ``package.module:factory``.
    module
        The network, without parallel wrappers, in evaluation mode.
    transform
        From pixels to its input.
    aliases
        Alias (``conv5_3``) to module name (``features.28``), in network order.
    weights
        ``none``, ``imagenet`` or the state file's name.
    weights_sha256
        Of the state: names, dtypes, shapes and bytes, whatever the file's format was.
    random_keys
        Keys of the state that stayed random although weights were loaded; empty for ``none``.
    arguments
        The keyword arguments the network was built with.
    canvas_size
        Side of its natural canvas, px.
    resting
        Names of the modules that whoever built it had put into evaluation mode, in a network that
        was otherwise in training mode: they stay so in training.
    notes
        What was assumed, such as the input of weights that do not state it.
    unrepeated
        Names of what its factory makes otherwise when it is called again; see
        :func:`elsewhere.models.repetition.build_twice`.
    classes
        Names of the classes that its outputs stand for, in order; empty where they are not known.
    batch_dependent
        What is done where its images depend on each other, on purpose or by accident: ``refuse``,
        or ``one-at-a-time``, one image a pass.
    chance_seed
        What generators are seeded with before every pass of one image, if the network draws random
        numbers; None refuses such networks.
    precision
        What its products are computed in: ``float32``, ``tf32`` or ``bfloat16``.
    batch_norm
        What training did with its running statistics, as the card of its checkpoint says; empty
        where it keeps none, or is no checkpoint.
    noise
        What acted in training only, such as dropout, as the card of its checkpoint says.
    origin
        Where its published weights, or those that training began with, come from, with what to
        cite in brackets; empty where they are none.
    seed
        With which its weights, or some of them, were drawn; None where none were.
    """

    name: str
    module: nn.Module
    transform: InputTransform
    aliases: dict[str, str]
    weights: str
    weights_sha256: str
    random_keys: tuple[str, ...] = ()
    arguments: Mapping[str, object] = field(default_factory=dict)
    canvas_size: int = 224
    resting: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unrepeated: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    batch_dependent: BatchDependent = "refuse"
    chance_seed: int | None = None
    precision: Precision = "float32"
    batch_norm: str = ""
    noise: tuple[str, ...] = ()
    origin: str = ""
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.batch_dependent not in get_args(BatchDependent):
            raise UnknownNameError(
                "way to run batch-dependent networks",
                self.batch_dependent,
                get_args(BatchDependent),
            )
        if self.chance_seed is not None and not 0 <= self.chance_seed < 2**63:
            raise InputError(
                f"the seed of chance must be from 0 to 2**63 - 1; got {self.chance_seed!r}"
            )
        if self.precision not in get_args(Precision):
            raise UnknownNameError("precision", self.precision, get_args(Precision))

    def __repr__(self) -> str:
        facts = {"model": self.name, "model_arguments": self.arguments, "weights": self.weights}
        n_parameters = sum(each.numel() for each in self.module.parameters())
        name = f"{network_name(facts)} ({weights_name(facts)})"
        said = f"<Model {name}: {n_parameters:,} parameters, canvas {self.canvas_size} px>"
        return visible(said)

    def _repr_html_(self) -> str:
        aliases = {module: alias for alias, module in self.aliases.items()}
        own = [
            (name, part, dict(part.named_parameters(recurse=False)))
            for name, part in self.module.named_modules()
            if not any(True for _ in part.children())
        ]
        rows = [
            {
                "layer": aliases.get(name, name),
                "module": name,
                "type": type(part).__name__,
                "weights": size_of(found["weight"].shape) if "weight" in found else "",
                "parameters": f"{sum(p.numel() for p in found.values()):,}" if found else "",
            }
            for name, part, found in own
        ]
        n_parameters = sum(each.numel() for each in self.module.parameters())
        facts = {
            "weights": self.weights,
            "parameters": f"{n_parameters:,}",
            "canvas": f"{self.canvas_size} px",
            "input": ", ".join(f"{key} {value}" for key, value in self.transform.facts.items()),
            "device": self.device,
            "precision": "" if self.precision == "float32" else self.precision,
            "classes": len(self.classes) or "",
            "origin": self.origin,
        }
        return page("Model", self.name, facts, rows=rows, notes=self.doubts)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What every result of the network has to say: what was assumed, and what is unrepeated."""
        again = [unrepeated_note(self.name, self.unrepeated)] if self.unrepeated else []
        return (*self.notes, *again)

    def running(self, **how: Any) -> Model:
        """Return this model, run otherwise: `batch_dependent`, `chance_seed`, `precision`."""
        return replace(self, **how)

    def to(self, device: torch.device | str) -> Model:
        """Move the network to `device`, in place as torch does, and return this model."""
        self.module.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the network's first parameter or buffer lies; the CPU if it has none."""
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            return tensor.device
        return torch.device("cpu")


def unwrap(module: nn.Module) -> nn.Module:
    """Return the network inside parallel wrappers, and the one that ``torch.compile`` was given.

    Examples
    --------
    >>> unwrap(nn.DataParallel(nn.ReLU()))
    ReLU()
    """
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module


def is_compiled(module: nn.Module) -> bool:
    """Return whether a part of a network is compiled."""
    return any(
        hasattr(part, "_orig_mod") or part._compiled_call_impl is not None
        for part in module.modules()
    )


def uncompile(module: nn.Module) -> nn.Module:
    """Return a network without wrappers, whose parts are not compiled either, changed in place.

    Raises
    ------
    InputError
        A part's ``forward`` itself was compiled: the parts within it cannot be listened to.

    Examples
    --------
    >>> uncompile(nn.Sequential(torch.compile(nn.ReLU()), nn.Flatten()))
    Sequential(
      (0): ReLU()
      (1): Flatten(start_dim=1, end_dim=-1)
    )
    """
    module = unwrap(module)
    _uncompile_parts(module)
    for name, part in module.named_modules():
        part._compiled_call_impl = None  # by part.compile()
        if hasattr(part.forward, "_torchdynamo_orig_callable"):
            raise InputError(
                f"the forward method of {name or 'the network'} ({type(part).__name__}) is "
                "compiled, and what runs within cannot be listened to; return the network before "
                "torch.compile"
            )
    return module


def _uncompile_parts(module: nn.Module) -> None:
    for name, part in list(module._modules.items()):
        if part is None:
            continue
        while isinstance(inner := getattr(part, "_orig_mod", None), nn.Module):
            part = inner
            setattr(module, name, part)
        _uncompile_parts(part)


def wake(device: torch.device) -> None:
    """Have a thread load what a GPU needs to begin with, which takes seconds, beside other work."""
    if device.type == "cuda":
        threading.Thread(target=_use, args=(device,), daemon=True).start()


def _use(device: torch.device) -> None:
    with contextlib.suppress(RuntimeError), torch.inference_mode():  # whoever uses it says so
        image = torch.zeros(1, 8, 8, 8, device=device)
        found = nn.functional.conv2d(image, image[:, :, :3, :3])
        (found.flatten(2) @ found.flatten(2).mT).sum().item()


def find_device(name: str = "auto") -> torch.device:
    """Return the device called `name`; ``auto`` is CUDA where there is one, else the CPU.

    Raises
    ------
    InputError
        A name torch does not know, or a device that this machine lacks.

    Examples
    --------
    >>> find_device("cpu")
    device(type='cpu')
    """
    device = name_device(name)
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InputError(
                f"device {name!r} is not available: this machine shows torch {count} CUDA "
                "device(s); use --device auto or cpu"
            )
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device {name!r} is not available here; use --device auto or cpu")
    return device


def name_device(name: str) -> torch.device | None:
    """Return the device that `name` means, whether or not this machine has it; of ``auto`` None.

    Raises
    ------
    InputError
        There is no such device, or networks cannot run on it.
    """
    if name == "auto":
        return None
    expected = "expected auto, cpu, cuda, cuda:N or mps"
    if "," in name:
        raise InputError(f"{name!r} names several devices, and this takes one; {expected}")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"unknown device {name!r}; {expected}") from None
    if device.type not in ("cpu", "cuda", "mps") or (device.type == "cpu" and device.index):
        raise InputError(f"device {name!r} cannot be used; {expected}")
    return device

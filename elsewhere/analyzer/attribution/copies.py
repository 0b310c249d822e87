"""A copy of a network to attribute with: in evaluation mode, nothing of it learns or is in place.

:class:`PlainNetwork` leaves the network itself as it is; its outputs are those of the network, bit
for bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from elsewhere.errors import InputError, LayerError
from elsewhere.models import Conduct, Layer, Model, output_tensors
from elsewhere.models.memory import Memory
from elsewhere.models.restoring import copy_network


class PlainNetwork(nn.Module):
    """A copy of a network, whose layers can be had call by call.

    Parameters
    ----------
    model
        The network; it is left as it is. Frozen parameters are fine.

    conduct
        How the network has to be run; in batches by default.

    Raises
    ------
    InputError
        Parameters made under ``torch.inference_mode``, which have no gradients.
    """

    def __init__(self, model: Model, conduct: Conduct | None = None) -> None:
        super().__init__()
        self._conduct = Conduct() if conduct is None else conduct
        check_gradients(model)
        self.network = copy_network(model.module).eval()
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)
        for part in self.network.modules():  # what it overwrites might be needed for gradients
            if getattr(part, "inplace", False) is True:
                part.inplace = False  # type: ignore[assignment]

    def forward(self, values: torch.Tensor) -> Any:
        """Return what the network returns."""
        if self._conduct.alone and len(values) > 1:
            raise InputError(
                f"this method runs {len(values)} images in a pass, and the network has to be run "
                "one image a pass; take a method that needs gradients only, such as saliency or "
                "integrated-gradients"
            )
        kept = Memory(self.network).kept() if self._conduct.keeps else contextlib.nullcontext()
        with self._conduct.a_pass(self.network), kept:
            return self.network(values.clone())  # the network may work on it in place

    def until(
        self, values: torch.Tensor, module: str, call: int, output: int | str | None
    ) -> torch.Tensor:
        """Return what a call of a module gives; the rest of the pass is not run.

        Raises
        ------
        LayerError
            The module does not run, or not so often.
        """

        def stop(found: object) -> None:
            raise _Enough(output_tensors(found)[output])

        seen: list[int] = []
        try:
            with self._hooked(module, call, stop, seen):
                self(values)
        except _Enough as enough:
            return enough.tensor
        raise _not_run(module, call, len(seen))

    def beside(self, values: torch.Tensor, layer: Layer) -> tuple[Any, torch.Tensor]:
        """Return what the network returns, and what a call of a module gives on the way.

        Raises
        ------
        LayerError
            The module does not run, or not so often.
        """
        kept: list[torch.Tensor] = []
        seen: list[int] = []

        def keep(found: object) -> None:  # copied, as what follows may work on it in place
            kept.append(output_tensors(found)[layer.output].clone())

        with self._hooked(layer.module, layer.call, keep, seen):
            output = self(values)
        if not kept:
            raise _not_run(layer.module, layer.call, len(seen))
        return output, kept[0]

    @contextlib.contextmanager
    def keeping(self, layer: Layer) -> Iterator[list[torch.Tensor]]:
        """Yield a list that the next pass gives what a call of a module returns.

        The network goes on with a copy, so that what it does in place leaves the kept tensor alone.
        """
        kept: list[torch.Tensor] = []

        def keep(found: Any) -> Any:
            kept.append(output_tensors(found)[layer.output])
            return _exchanged(found, kept[-1], kept[-1].clone())

        with self._hooked(layer.module, layer.call, keep, []):
            yield kept

    @contextlib.contextmanager
    def _hooked(
        self, module: str, call: int, run: Callable[[Any], Any], seen: list[int]
    ) -> Iterator[None]:
        """Run a function on what a call of a module gives; `seen` gets an entry for each call."""

        def hook(part: nn.Module, inputs: tuple[Any, ...], found: object) -> Any:
            seen.append(len(seen))
            return run(found) if seen[-1] == call else None

        handle = self.network.get_submodule(module).register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()


def _not_run(module: str, call: int, times: int) -> LayerError:
    return LayerError(f"layer {module!r} ran {times} time(s) in a forward pass, not {call + 1}")


class _Enough(Exception):
    """Raised inside the last hook that is needed, with what it was given."""

    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__()
        self.tensor = tensor


def _exchanged(found: Any, old: torch.Tensor, new: torch.Tensor) -> Any:
    """Return a module's output with another tensor in the place of one of its own."""
    if found is old:
        return new
    if isinstance(found, Mapping):
        return type(found)((key, new if each is old else each) for key, each in found.items())  # type: ignore[call-arg]
    if isinstance(found, tuple) and hasattr(found, "_make"):
        return found._make(new if each is old else each for each in found)
    return type(found)(new if each is old else each for each in found)


def check_gradients(model: Model) -> None:
    """Refuse a network whose tensors were made under ``torch.inference_mode``.

    Raises
    ------
    InputError
        Naming the first such tensor.
    """
    tensors = (*model.module.named_parameters(), *model.module.named_buffers())
    for name, tensor in tensors:
        if tensor.is_inference():
            raise InputError(
                f"{model.name} has no gradients: its {name!r} was made under "
                "torch.inference_mode; build and load it outside (frozen parameters are fine)"
            )

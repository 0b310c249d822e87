"""Images that are computed only if something looks at them.

A network is given a :class:`Promise` of its canvases. As long as it does with it what is foreseen,
convolution after ReLU after pooling, the promise is passed on, and tiles stand for the canvases.
Whoever does anything else with it, in whatever pass, gets the true values: so a network that
changes its mind, by a counter of its own or for one image only, computes what it would have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

Step: TypeAlias = tuple[torch.Tensor, torch.Tensor | None]
"""Weight and bias of a convolution, as the network handed them over."""

_Tensor: Any = torch.Tensor
_METADATA = frozenset(
    {
        *(
            getattr(_Tensor, name).__get__
            for name in ("shape", "dtype", "device", "ndim", "layout")
        ),
        *(getattr(_Tensor, name).__get__ for name in ("is_cuda", "requires_grad", "is_leaf")),
        *(_Tensor.size, _Tensor.dim, _Tensor.numel, _Tensor.__len__, _Tensor.is_floating_point),
        *(_Tensor.is_complex, torch.is_floating_point, torch.is_complex, torch.numel),
    }
)
_EXPOSING = {
    *("__get__", "__array__", "__dlpack__", "data_ptr", "numpy", "storage", "untyped_storage"),
}
"""Ways to the values by which they can be changed without being noticed."""


@dataclass
class Foreseen:
    """What is foreseen for the canvases of a pass, and what is done when it has come.

    `finish` returns what the last operation gives, from the steps that the convolutions were given.
    """

    plan: Sequence[str]  # the names of the operations, in order
    finish: Callable[[Sequence[Step]], torch.Tensor]
    taken: bool = False  # whether it has come to that


class Promise(torch.Tensor):
    """Canvases, or a map of them, that nobody has looked at yet.

    There are no data below. What reaches for them past ``__torch_function__``, such as an extension
    in C++, gets the true values where these are images, and an error where they are maps, of which
    it would lose the gradient.
    """

    _foreseen: Foreseen
    _make: Callable[[], torch.Tensor]
    _steps: tuple[Step, ...]
    _place: int
    _modes: tuple[bool, ...]
    _value: torch.Tensor | None
    _seen_at: int | None

    @staticmethod
    def of(
        make: Callable[[], torch.Tensor],
        shape: Sequence[int],
        dtype: torch.dtype,
        foreseen: Foreseen,
        *,
        steps: tuple[Step, ...] = (),
        place: int = 0,
    ) -> Promise:
        """Return the promise of what `make` returns, of that shape."""
        make_wrapper: Any = torch.Tensor._make_wrapper_subclass
        promise: Promise = make_wrapper(Promise, shape, dtype=dtype)
        promise._make, promise._foreseen = make, foreseen
        promise._steps, promise._place, promise._modes = steps, place, _modes()
        promise._value = promise._seen_at = None
        return promise

    def look(self, *, exposed: bool = False) -> torch.Tensor:
        """Return the true values; the same tensor each time."""
        if self._value is None:
            self._value = self._original()
            self._seen_at = _version_of(self._value)
        if exposed:
            self._seen_at = None
        return self._value

    @property
    def _is_untouched(self) -> bool:
        """Whether the values are certainly what they were at first."""
        if self._value is None:
            return True
        return self._seen_at is not None and self._seen_at == _version_of(self._value)

    def _original(self) -> torch.Tensor:
        """Return the values as they were before anyone could change them."""
        if self._value is not None and self._is_untouched:
            return self._value
        with torch.set_grad_enabled(self._modes[0]):
            return self._make()

    def _follow(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> torch.Tensor | None:
        """Return the promise of a foreseen operation's result; None where it is another."""
        plan, name = self._foreseen.plan, getattr(func, "__name__", "")
        if self._place == len(plan) or not self._is_untouched or _modes() != self._modes:
            return None
        wanted, (n, channels, *sides) = plan[self._place], self.shape
        steps = self._steps
        if wanted == "conv2d" == name:
            given = _bind("weight bias stride padding dilation groups", args, kwargs)
            weight = given["weight"]
            if not is_plain_convolution(given, channels):
                return None
            steps, channels = (*steps, (weight, given.get("bias"))), len(weight)
        elif wanted == "relu" and name in ("relu", "relu_"):
            if name == "relu_" or _bind("inplace", args, kwargs).get("inplace", False):
                return self._rectify(func, args, kwargs)
        elif wanted == "max_pool2d" == name:
            given = _bind(
                "kernel_size stride padding dilation ceil_mode return_indices", args, kwargs
            )
            if not is_plain_pooling(given):
                return None
            sides = [side // 2 for side in sides]
        else:
            return None
        if self._place + 1 == len(plan):
            self._foreseen.taken = True
            return self._foreseen.finish(steps)
        return Promise.of(
            lambda: func(self._original(), *args, **kwargs),
            (n, channels, *sides),
            self.dtype,
            self._foreseen,
            steps=steps,
            place=self._place + 1,
        )

    def _rectify(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Promise | None:
        """Become what a ReLU in place makes of this; None where it has been looked at already."""
        if self._value is not None:
            return None
        make = self._make
        self._make = lambda: func(make(), *args, **kwargs)
        self._place += 1
        return self

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Pass the promise on where `func` is foreseen, else run it on the true values."""
        kwargs = dict(kwargs or {})
        if func in _METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        first, rest = (args[0], (args[1:], kwargs)) if args else (None, ((), kwargs))
        alone = not any(isinstance(value, Promise) for value in tree_leaves(rest))
        if isinstance(first, Promise) and alone:
            following = first._follow(func, args[1:], kwargs)
            if following is not None:
                return following
        exposed = getattr(func, "__name__", "") in _EXPOSING
        args, kwargs = tree_map_only(
            Promise, lambda promise: promise.look(exposed=exposed), (args, kwargs)
        )
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run what came past ``__torch_function__`` on the true values of images.

        Raises
        ------
        RuntimeError
            It is given a map.
        """

        def look(promise: Promise) -> torch.Tensor:
            if promise._place:
                raise RuntimeError(
                    f"{func} looks at a map past torch's Python functions, by which training on "
                    "windows would lose its gradient; set whole_canvases = True on the network"
                )
            return promise.look(exposed=True)

        args, kwargs = tree_map_only(Promise, look, (args, dict(kwargs or {})))
        return func(*args, **kwargs)


def _modes() -> tuple[bool, ...]:
    """Return what else decides how an operation runs."""
    return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")


def _version_of(value: torch.Tensor) -> int | None:
    return None if value.is_inference() else value._version


def _bind(names: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {**dict(zip(names.split(), args, strict=False)), **kwargs}


def is_plain_convolution(given: Mapping[str, Any], channels: int) -> bool:
    """Return whether it is 3x3 with a padding of one cell of zeros, and nothing else."""
    weight = given["weight"]
    return (
        set(given) <= {"weight", "bias", "stride", "padding", "dilation", "groups"}
        and isinstance(weight, torch.Tensor)
        and tuple(weight.shape[1:]) == (channels, 3, 3)
        and given.get("padding") in (1, (1, 1), [1, 1])
        and given.get("stride", 1) in (1, (1, 1), [1, 1])
        and given.get("dilation", 1) in (1, (1, 1), [1, 1])
        and given.get("groups", 1) == 1
    )


def is_plain_pooling(given: Mapping[str, Any]) -> bool:
    """Return whether it takes the largest of 2x2 cells, and nothing else."""
    return (
        given.get("kernel_size") in (2, (2, 2), [2, 2])
        and given.get("stride") in (None, 2, (2, 2), [2, 2])
        and given.get("padding", 0) in (0, (0, 0), [0, 0])
        and given.get("dilation", 1) in (1, (1, 1), [1, 1])
        and not given.get("return_indices", False)
    )

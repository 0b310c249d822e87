"""Whether a maximum is one over different features, or a function of one: ``amax`` of x and 0.

What a maximum is taken of is followed back through everything that only moves values. In place of
these, labels are moved: where labels of a constant and of a feature, or of two functions of one
feature, meet in one maximum, it is no pooling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import fx

from elsewhere.analyzer.attribution.tracing import call, limits_of, name_of

Sets: TypeAlias = Mapping[str, Any]

_POINTWISE = frozenset({"mul", "div", "neg", "add", "sub", "rsub"})
_AT_LEAST_0 = frozenset({"sigmoid", "exp", "softplus", "abs", "hardsigmoid", "_softmax"})
_VALUES = {
    **dict.fromkeys(("cat", "stack"), (0,)),
    **dict.fromkeys(("slice_scatter", "select_scatter"), (0, 1)),
    **{"where": (1, 2), "masked_fill": (2,)},
}
_CONSTANT = 1.0
_NEVER = -math.inf


class Maxima:
    """Follows what the maxima of a graph are taken of.

    Parameters
    ----------
    graph
        All operations.
    images
        What they are done with once, for constants and shapes.
    path
        The operations that depend on the image.
    moving, univariate, maxima
        Names of operations that move values, of functions of one value each, and of maxima.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        images: torch.Tensor,
        path: Mapping[fx.Node, None],
        moving: Sets,
        univariate: frozenset[str],
        maxima: frozenset[str],
    ) -> None:
        self._path, self._device = path, images.device
        kept = _Kept(graph, path)
        with torch.no_grad():
            kept.run(images)
        self._values = kept.values
        self._moving, self._univariate, self._maxima = moving, univariate, maxima

    def refusal(self, node: fx.Node) -> str:
        """Return why a maximum is none over different features; nothing where it is."""
        source: Any = node.args[0]
        chains: dict[fx.Node, int] = {}
        spared = self._is_at_least_0(source)
        target: Any = node.target
        highest, lowest = (
            _first(
                target(self._labels(source, sign, chains, spared), *node.args[1:], **node.kwargs)
            )
            for sign in (1.0, -1.0)
        )
        mixed = highest != -lowest
        if not bool((mixed & torch.isfinite(highest) & torch.isfinite(lowest)).any()):
            return ""
        met = {*highest[mixed].tolist(), *(-lowest[mixed]).tolist()}
        if _CONSTANT in met:
            return "which has a constant beside what depends on the image"
        origins = [self._origin(chain) for chain, label in chains.items() if label in met]
        if len(set(origins)) < len(origins):
            return "of several functions of the same values"
        return ""

    def _labels(
        self, node: Any, sign: float, chains: dict[fx.Node, int], spared: bool
    ) -> torch.Tensor | Any:
        """Return what stands for each value of an operation: where it comes from."""
        value = self._values[node]
        if node not in self._path:
            return self._constants(value, sign, spared)
        name = name_of(node)
        if name == "getitem" and name_of(node.args[0]) in self._moving:
            return self._labels(node.args[0], sign, chains, spared)[node.args[1]]
        if name in self._moving and name not in ("copy",):
            return call(node, *self._given(node, sign, chains, spared))
        label = sign * chains.setdefault(node, len(chains) + 2)
        like = _first(value)
        found = torch.full_like(like, label, dtype=torch.float64, device=self._device)
        if name == "mul":
            for each in node.all_input_nodes:
                if each not in self._path:
                    off = self._values[each] == 0
                    found[off.expand_as(found)] = _NEVER if spared else sign * _CONSTANT
        return found

    def _given(
        self, node: fx.Node, sign: float, chains: dict[fx.Node, int], spared: bool
    ) -> tuple[list[Any], dict[str, Any]]:
        name = name_of(node)

        def labelled(each: Any, place: int) -> Any:
            if isinstance(each, list | tuple) and name in ("cat", "stack"):
                return [labelled(member, place) for member in each]
            if not isinstance(each, fx.Node):
                if isinstance(each, list | tuple):
                    return [labelled(member, place) for member in each]
                filled = {"constant_pad_nd": 2, "masked_fill": 2}.get(name) == place
                if filled and isinstance(each, int | float):
                    return float(self._constants(torch.tensor(float(each)), sign, spared))
                return each
            if each in self._path or self._holds_values(name, place):
                return self._labels(each, sign, chains, spared)
            return self._values[each]

        args = [labelled(each, place) for place, each in enumerate(node.args)]
        if name == "constant_pad_nd" and len(args) < 3:
            args.append(float(self._constants(torch.tensor(0.0), sign, spared)))
        kwargs = {k: labelled(v, -1) for k, v in node.kwargs.items() if k != "dtype"}
        return args, kwargs

    @staticmethod
    def _holds_values(name: str, place: int) -> bool:
        """Return whether an argument that depends on no image gives values, rather than places."""
        return place in _VALUES.get(name, ())

    @staticmethod
    def _constants(value: torch.Tensor, sign: float, spared: bool) -> torch.Tensor:
        """Return labels of constants; those that cannot be the largest are as if they were not."""
        never = value <= (0 if spared else torch.finfo(torch.float32).min)
        found = torch.full_like(value, sign * _CONSTANT, dtype=torch.float64)
        return found.masked_fill(never, _NEVER)

    def _origin(self, node: fx.Node) -> fx.Node:
        """Return of what an operation is a function, value by value."""
        name = name_of(node)
        inside = [each for each in node.all_input_nodes if each in self._path]
        pointwise = name in self._univariate or name in _POINTWISE or name in self._moving
        return self._origin(inside[0]) if pointwise and len(inside) == 1 else node

    def _is_at_least_0(self, node: Any) -> bool:
        """Return whether values are known not to be negative, with all constants among them."""
        if node not in self._path:
            return bool((self._values[node] >= 0).all())
        name = name_of(node)
        if name in ("relu", "hardtanh", "clamp", "clamp_min"):
            return limits_of(node)[0] >= 0
        if name in _AT_LEAST_0:
            return True
        kept = name in self._moving or name in self._maxima or name == "getitem"
        if name in ("constant_pad_nd", "masked_fill"):
            fill: Any = node.args[2] if len(node.args) > 2 else 0.0
            kept = isinstance(fill, int | float) and fill >= 0
        kept = kept or name.endswith(("avg_pool2d", "mean", "sum"))
        numbers = [each for each in node.all_input_nodes if each in self._path or kept]
        return kept and all(map(self._is_at_least_0, numbers))


class _Kept(fx.Interpreter):
    """Keeps constants, and the shapes of what depends on the image."""

    def __init__(self, graph: fx.GraphModule, path: Mapping[fx.Node, None]) -> None:
        super().__init__(graph)
        self._path, self.values = path, dict[fx.Node, Any]()

    def run_node(self, n: fx.Node) -> Any:
        """Run a node."""
        found = super().run_node(n)
        tensors = torch.utils._pytree.tree_map_only(torch.Tensor, lambda t: t.to("meta"), found)
        self.values[n] = tensors if n in self._path else found
        return found


def _first(found: Any) -> torch.Tensor:
    result: torch.Tensor = found[0] if isinstance(found, tuple | list) else found
    return result

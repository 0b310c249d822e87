"""A pass through a network as torch's own (ATen) operations, and what each is given."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import fx, nn
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx

from elsewhere.errors import InputError

Function: TypeAlias = Callable[[torch.Tensor], torch.Tensor]

SHAPED = frozenset(
    {f"new_{kind}" for kind in ("empty", "zeros", "ones", "full", "empty_strided")}
    | {f"{kind}_like" for kind in ("empty", "zeros", "ones", "full", "rand", "randn")}
)
"""Operations that take nothing but the shape of their argument."""


def follow(
    function: Function, parts: nn.Module, images: torch.Tensor, method: str
) -> tuple[fx.GraphModule, dict[fx.Node, str]]:
    """Return a network's operations on images of a shape, and the module that each is part of.

    Raises
    ------
    InputError
        It cannot be followed, such as one that decides by what it sees.
    """
    owners: dict[fx.Node, str] = {}
    try:
        with torch.no_grad(), owning(parts, owners):
            graph = make_fx(functionalize(lambda values: function(values)))(images)
        if any(map(mutates, graph.graph.nodes)):  # inside operations made of others
            owners = {}
            with torch.no_grad():
                graph = make_fx(functionalize(lambda values: graph(values)))(images)
        if changing := [node for node in graph.graph.nodes if mutates(node)]:
            raise InputError(
                f"{method} has no rule for the operation {changing[0].target}, which works in "
                "place; take integrated-gradients, which needs gradients only"
            )
    except InputError:
        raise
    except Exception as error:  # any network, any complaint
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(
            f"{method} cannot follow the network operation by operation ({reason}); take "
            "integrated-gradients, which needs gradients only"
        ) from error
    return graph, owners


@contextlib.contextmanager
def owning(parts: nn.Module, owners: dict[fx.Node, str]) -> Iterator[None]:
    """Note the innermost module in which each operation is done."""
    started: list[int] = []

    def nodes() -> list[fx.Node]:
        mode = get_proxy_mode()
        return [] if mode is None else list(mode.tracer.graph.nodes)

    def enter(*_: object) -> None:
        started.append(len(nodes()))

    def leave(name: str, *_: object) -> None:
        for node in nodes()[started.pop() :]:
            owners.setdefault(node, name)

    handles = []
    for name, part in parts.named_modules():
        if name:
            handles.append(part.register_forward_pre_hook(enter))
            handles.append(part.register_forward_hook(partial(leave, name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def path_of(graph: fx.GraphModule) -> dict[fx.Node, None]:
    """Return the operations that depend on the image and on which the scores depend, in order."""
    nodes = list(graph.graph.nodes)
    reached = {node for node in nodes if node.op == "placeholder"}
    for node in nodes:
        if name_of(node) not in SHAPED and reached & set(node.all_input_nodes):
            reached.add(node)
    wanted = {node for node in nodes if node.op == "output"}
    for node in reversed(nodes):
        if node in wanted:
            wanted |= set(node.all_input_nodes)
    both = reached & wanted
    return {node: None for node in nodes if node in both and node.op != "output"}


def name_of(node: fx.Node) -> str:
    target: Any = node.target
    if packet := getattr(target, "overloadpacket", None):
        return str(packet).rpartition(".")[2]
    return str(getattr(target, "__name__", target))


def call(node: fx.Node, args: Any, kwargs: Any) -> Any:
    """Do an operation."""
    if name_of(node) == "copy":  # which has no derivative
        return args[1].expand_as(args[0]).to(args[0].dtype)
    target: Any = node.target
    return target(*args, **kwargs)


def mutates(node: fx.Node) -> bool:
    schema: Any = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def overload_of(node: fx.Node) -> str:
    return str(getattr(node.target, "_overloadname", ""))


def limits_of(node: fx.Node) -> tuple[float, float]:
    """Return between what a rectifier cuts; NaN where that is not a number."""
    name, given = name_of(node), [*node.args[1:], *[None] * 2]
    if name == "relu":
        return 0.0, math.inf
    usual = (-1.0, 1.0) if name == "hardtanh" else (-math.inf, math.inf)
    low, high = (
        float(value) if isinstance(value, int | float) else math.nan if value is not None else rest
        for value, rest in zip(given[:2], usual, strict=True)
    )
    return low, high


def has_constants(node: fx.Node, path: Mapping[fx.Node, None]) -> bool:
    """Return whether an operation that is linear otherwise may add a constant."""
    name, places = name_of(node), places_of(node, path)
    if name == "convolution":
        return node.args[2] is not None
    if name in ("add", "sub", "rsub", "slice_scatter", "select_scatter"):
        return places != {0, 1}
    if name in ("addmm", "baddbmm"):
        return 0 not in places
    if name in ("cat", "stack"):
        members: Any = node.args[0]
        return not all(member in path for member in members)
    if name == "where":
        return places != {1, 2}
    if name == "copy":
        return 1 not in places
    return name.endswith("batch_norm") or name in (
        *("_native_batch_norm_legit_no_training", "constant_pad_nd", "masked_fill"),
    )


def places_of(node: fx.Node, path: Mapping[fx.Node, None]) -> frozenset[int]:
    """Return the places of the arguments that depend on the image; -1 for those with a name."""

    def depends(value: Any) -> bool:
        if isinstance(value, fx.Node):
            return value in path
        return isinstance(value, list | tuple) and any(map(depends, value))

    places = {place for place, value in enumerate(node.args) if depends(value)}
    return frozenset(places | ({-1} if any(map(depends, node.kwargs.values())) else set()))


class Interpreter(fx.Interpreter):
    """Runs a graph; what depends on the image, by a function that is given."""

    def __init__(
        self,
        graph: fx.GraphModule,
        run: Callable[[fx.Node, Any, Any], Any],
        path: Mapping[fx.Node, None],
    ) -> None:
        super().__init__(graph)
        self._run, self._path = run, path

    def run_node(self, n: fx.Node) -> Any:
        """Run a node."""
        if n not in self._path or n.op == "placeholder" or name_of(n) == "getitem":
            return super().run_node(n)
        return self._run(n, *self.fetch_args_kwargs_from_env(n))

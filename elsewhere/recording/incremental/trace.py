"""A network as a list of operations, by symbolic tracing (``torch.fx``)."""

from __future__ import annotations

import contextlib
import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate

from elsewhere.errors import InputError, reason_of
from elsewhere.models import untouched
from elsewhere.recording.incremental.rules import window_rules
from elsewhere.recording.incremental.treatments import Call, mutates

OutputKey: TypeAlias = tuple[str, int, "int | str | None"]
"""A module's name, which of its calls, and the key of the tensor in its output."""

_VIEWS = frozenset(
    {
        *("flatten", "view", "reshape", "transpose", "permute", "unsqueeze", "squeeze", "expand"),
        *("getitem", "chunk", "split", "tensor_split", "unbind", "narrow", "select", "unfold"),
        *("view_as", "reshape_as", "swapaxes", "movedim", "t", "diagonal", "real", "getattr"),
        *("detach", "contiguous", "to", "float", "type_as", "Flatten", "Unflatten"),
    }
)
"""Operations whose result may lie in the memory of their argument."""

_NOTHING = frozenset({"Identity", "Dropout", "Dropout2d", "AlphaDropout", "FeatureAlphaDropout"})
"""Modules that return their argument itself, in evaluation mode."""


class NotTraceable(InputError):
    """A network that the incremental engine cannot follow; the message says why."""


@contextlib.contextmanager
def following() -> Iterator[None]:
    """Turn whatever fails while a network is followed into :class:`NotTraceable`.

    Networks, and rules of somebody's own, may raise anything; whole canvases remain.
    """
    try:
        yield
    except NotTraceable:
        raise
    except Exception as error:  # any network, any complaint
        raise NotTraceable(f"following it fails ({reason_of(error)})") from error


@dataclass(frozen=True)
class Step:
    """One operation of a network; in its arguments a :class:`Value` stands for another's value."""

    node: str  # its name in the graph, by which other steps name its value
    name: str  # of its rule
    module: nn.Module | None  # where it is one
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    mutates: bool  # whether it changes its first argument

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the steps whose values it takes, in order."""
        found: list[str] = []

        def collect(value: Any) -> Any:
            if isinstance(value, Value):
                found.append(value.name)
            return value

        map_aggregate((self.args, self.kwargs), collect)
        return tuple(found)

    def fill(self, look_up: Callable[[str], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with each value looked up by its step's name."""

        def replace(value: Any) -> Any:
            return look_up(value.name) if isinstance(value, Value) else value

        args: Any = map_aggregate(self.args, replace)
        kwargs: Any = map_aggregate(self.kwargs, replace)
        return tuple(args), dict(kwargs)


@dataclass(frozen=True)
class Value:
    """Stands for the value of a step."""

    name: str


@dataclass(frozen=True)
class Program:
    """What a forward pass does, step by step, to the input called `source`.

    `outputs` are what each call of each module gives: a :class:`Value`, or a tuple, list or
    dictionary. The network itself has no name.
    """

    source: str
    steps: tuple[Step, ...]
    outputs: dict[tuple[str, int], Any]

    def leading(self, names: Collection[str]) -> Program:
        """Return the program with only the steps that lead to those `names`."""
        wanted, steps = set(names), []
        for step in reversed(self.steps):
            if step.node in wanted:
                steps.append(step)
                wanted |= set(step.inputs)
        return replace(self, steps=tuple(reversed(steps)))

    def find(self, values: dict[str, Any]) -> dict[OutputKey, str]:
        """Return the step that gives each tensor of each call of a module.

        `values` are those of each step, to tell tensors from others.
        """
        found: dict[OutputKey, str] = {}
        for (module, call), structure in self.outputs.items():
            items: Any = ((None, structure),)
            if isinstance(structure, dict):
                items = structure.items()
            elif isinstance(structure, list | tuple):
                items = enumerate(structure)
            names = {
                (key if isinstance(key, int) or key is None else str(key)): entry.name
                for key, entry in items
                if isinstance(entry, Value) and isinstance(values.get(entry.name), torch.Tensor)
            }
            if isinstance(structure, Value):
                whole = isinstance(values.get(structure.name), torch.Tensor)
                names = {None: structure.name} if whole else {}  # no part of a leaf's tuple
            elif len(names) == 1:
                names = {None: next(iter(names.values()))}
            for key, name in names.items():
                found[module, call, key] = name
        return found


def trace(module: nn.Module) -> Program:
    """Return what `module`, in evaluation mode, does in a forward pass.

    Raises
    ------
    NotTraceable
        It branches on values, has hooks that may change them, or overwrites memory in a way
        that cannot be followed.
    """
    for name, part in module.named_modules():
        hooks = (part._forward_hooks, part._forward_pre_hooks)
        if any(map(len, hooks)):
            raise NotTraceable(f"{name or 'the network'} has hooks, which may change its values")
    tracer = _Tracer()
    try:
        with untouched(module):  # a network that keeps what it computes would keep proxies
            graph = tracer.trace(module, concrete_args=_defaults(module))
    except Exception as error:  # any network, any complaint
        raise NotTraceable(f"torch.fx cannot trace it ({reason_of(error)})") from error
    _keep_channels(graph)
    return _Reader(module, graph, tracer.given).read()


class _Tracer(fx.Tracer):
    """Notes what every call of every module gives, and how far the graph was by then."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[str, int, Any, fx.Node]] = []
        self._calls: Counter[str] = Counter()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = module_name(m) in window_rules
        return own or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        result = super().call_module(m, forward, args, kwargs)
        name = self.path_of_module(m)
        last = next(iter(reversed(self.graph.nodes)))
        self.given.append((name, self._calls[name], result, last))
        self._calls[name] += 1
        return result


def module_name(module: nn.Module) -> str:
    """Return the name of a module's rule; of classes outside torch with their module's name."""
    kind = type(module)
    if kind.__module__.startswith("torch.nn."):
        return kind.__name__
    return f"{kind.__module__}.{kind.__qualname__}"


def function_name(function: Any) -> str:
    """Return the name of a function's rule; of functions outside torch with their module's."""
    name = str(getattr(function, "__name__", function))
    where = getattr(function, "__module__", None) or "torch"
    ours = where in ("torch", "_operator", "operator", "builtins") or where.startswith("torch.")
    return name if ours else f"{where}.{name}"


def _defaults(module: nn.Module) -> dict[str, Any]:
    """Return the default of every parameter but the first."""
    parameters = list(inspect.signature(module.forward).parameters.values())[1:]
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _keep_channels(graph: fx.Graph) -> None:
    """Write ``unsqueeze(x[:, c], 1)`` as ``x[:, c:c + 1]``, which is a map all the way."""
    for node in list(graph.nodes):
        if function_name(node.target) != "getitem" or len(node.args) != 2:
            continue
        chosen = node.args[1]
        if not isinstance(chosen, tuple) or len(chosen) != 2 or chosen[0] != slice(None):
            continue
        users = list(node.users)
        if not isinstance(chosen[1], int) or chosen[1] < 0 or not users:
            continue
        if all(
            function_name(user.target) == "unsqueeze" and user.args[1:] == (1,) for user in users
        ):
            node.args = (node.args[0], (slice(None), slice(chosen[1], chosen[1] + 1)))
            for user in users:
                user.replace_all_uses_with(node)
                graph.erase_node(user)


class _Reader:
    """Turns a graph into steps; follows what is overwritten in place."""

    def __init__(
        self, module: nn.Module, graph: fx.Graph, given: list[tuple[str, int, Any, fx.Node]]
    ) -> None:
        self._root, self._graph = module, graph
        self._modules = dict(module.named_modules())
        self._given: dict[fx.Node, list[tuple[str, int, Any]]] = {}
        for name, call, result, last in given:
            self._given.setdefault(last, []).append((name, call, result))
        self._current: dict[str, str] = {}  # which step holds a node's value by now
        self._memory: dict[str, int] = {}  # nodes that may share memory have one number
        self._stale: set[str] = set()

    def read(self) -> Program:
        """Return the steps."""
        source, steps, others = "", [], set[fx.Node]()
        outputs: dict[tuple[str, int], Any] = {}
        for node in self._graph.nodes:
            if source and (node.op == "placeholder" or {*node.all_input_nodes} & others):
                others.add(node)  # arguments that keep their defaults, and what checks that they do
            elif node.op == "placeholder":
                source = node.name
                self._current[node.name] = node.name
                self._memory[node.name] = len(self._memory)
            elif node.op == "output":
                outputs["", 0] = self._resolve(node.args[0])
            else:
                step = self._step(node)
                if step is not None:
                    steps.append(step)
            for name, call, result in self._given.get(node, []):
                outputs[name, call] = self._resolve(fx.node.map_aggregate(result, _unwrap))
        return Program(source, tuple(steps), outputs)

    def _step(self, node: fx.Node) -> Step | None:
        name, module, function = self._operation(node)
        args: Any = self._resolve(node.args)
        kwargs: Any = self._resolve(node.kwargs)
        nothing = module is not None and name in _NOTHING and not module.training
        first = args[0].name if args and isinstance(args[0], Value) else None
        if nothing and first is not None:
            self._current[node.name] = first
            self._memory[node.name] = self._memory[first]
            return None
        call = Call(name, module, function, args, kwargs, None)
        changes = mutates(call)
        step = Step(node.name, name, module, function, args, kwargs, changes)
        self._current[node.name] = node.name
        self._memory[node.name] = len(self._memory)
        if first is not None and (changes or name in _VIEWS):
            self._memory[node.name] = self._memory[first]
        if changes and first is not None:
            for other, held in list(self._current.items()):
                if held == first:
                    self._current[other] = node.name
            for other, number in self._memory.items():
                if number == self._memory[first] and self._current[other] != node.name:
                    self._stale.add(other)
        return step

    def _operation(self, node: fx.Node) -> tuple[str, nn.Module | None, Callable[..., Any]]:
        target: Any = node.target
        if node.op == "call_module":
            module = self._modules[target]
            return module_name(module), module, module
        if node.op == "call_method":
            return target, None, lambda first, *rest, **more: getattr(first, target)(*rest, **more)
        if node.op == "get_attr":
            return "get_attr", None, lambda: _attribute(self._root, target)
        return function_name(target), None, target

    def _resolve(self, structure: Any) -> Any:
        def look_up(value: Any) -> Any:
            if not isinstance(value, fx.Node):
                return value
            if value.name in self._stale:
                raise NotTraceable(f"{value.name} shares memory that is overwritten in place")
            if value.name not in self._current:
                raise NotTraceable(f"{value.name} depends on an argument beside the images")
            return Value(self._current[value.name])

        return map_aggregate(structure, look_up)


def _unwrap(value: Any) -> Any:
    return value.node if isinstance(value, fx.Proxy) else value


def _attribute(root: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        root = getattr(root, part)
    return root

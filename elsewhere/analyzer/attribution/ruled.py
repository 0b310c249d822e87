"""A network's operations, each with its rule on the way back.

Every operation on the way from the image to the score has to be known: :class:`Ruled` follows a
pass through the network down to torch's own (ATen) operations, whatever modules and functions they
come from, and refuses the first for which the method has no rule. What it follows is compared with
the network itself, output and gradient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import fx, nn

from elsewhere.analyzer.attribution.maxima import Maxima
from elsewhere.analyzer.attribution.rules import (
    MAXIMA,
    MIXING,
    MOVING,
    UNIVARIATE,
    Ledger,
    RuleSet,
    replaced,
    seen,
)
from elsewhere.analyzer.attribution.tracing import (
    Function,
    Interpreter,
    call,
    follow,
    has_constants,
    name_of,
    overload_of,
    path_of,
    places_of,
)
from elsewhere.errors import InputError


class Ruled:
    """A network's operations for batches of one shape, each with its rule.

    Parameters
    ----------
    function
        From images to scores.
    parts
        The network whose modules name the operations.
    images
        (n, 3, height, width).
    rules
        The method's.

    Raises
    ------
    InputError
        An operation without a rule, by name; or a network that does not do what its operations
        say, such as one with a derivative of its own making.

    Attributes
    ----------
    counts
        How many operations each rule has: ``epsilon: convolution``, ``guided: relu``.
    """

    def __init__(
        self, function: Function, parts: nn.Module, images: torch.Tensor, rules: RuleSet
    ) -> None:
        self.rules = rules
        self._graph, owners = follow(function, parts, images, rules.method)
        self._path = path_of(self._graph)
        self.counts: Counter[str] = Counter()
        self._named: dict[fx.Node, str] = {}
        self._maxima: Maxima | None = None
        if rules.cut and any(name_of(node) in MAXIMA for node in self._path):
            self._maxima = Maxima(self._graph, images, self._path, MOVING, UNIVARIATE, MAXIMA)
        for node in self._path:
            if node.op == "placeholder":
                continue
            said = self._name_rule(node, owners, parts)
            if said is not None:
                self._named[node] = said
                self.counts[said] += 1
        self._compare(function, images)
        if rules.halves:
            self._check_halves(images, owners, parts)

    def __call__(self, images: torch.Tensor, ledger: Ledger) -> torch.Tensor:
        """Return the scores; going back from them applies the rules, and fills the ledger."""
        run = partial(self._run, ledger=ledger)
        return cast(torch.Tensor, Interpreter(self._graph, run, self._path).run(images))

    def check(self, ledger: Ledger) -> None:
        """Refuse a pass back in which a rule was not applied as often as there are operations.

        Raises
        ------
        InputError
            Naming the operation.
        """
        for name, count in self.counts.items():
            if ledger.applied[name] != count:
                raise InputError(
                    f"{self.rules.method}'s rule ({name}) was applied {ledger.applied[name]} times "
                    f"to {count} operations: part of the network has no gradient; take "
                    "another method, such as occlusion"
                )

    # --- rules ------------------------------------------------------------------------------

    def _name_rule(
        self, node: fx.Node, owners: Mapping[fx.Node, str], parts: nn.Module
    ) -> str | None:
        """Return the name of an operation's rule, None where its derivative stays.

        Raises
        ------
        InputError
            It has none.
        """
        name, places = name_of(node), places_of(node, self._path)
        why = ""
        if name == "getitem":
            if name_of(node.args[0]) not in MAXIMA or node.args[1] == 0:  # type: ignore[arg-type]
                return None
            why = "the places of maxima"
        elif name in MIXING or name in MOVING:
            sets = MIXING.get(name) or MOVING[name]
            if not any(places <= each for each in sets):
                why = "of several things that depend on the image"
            elif name.endswith("batch_norm") and node.args[5] is True:
                why = "which depends on the other images of a batch"
            elif name in MIXING and self.rules.epsilon is not None:
                return f"epsilon: {name}"
            else:
                return None
        elif places == {0} and name in MAXIMA and (name != "max" or overload_of(node) == "dim"):
            why = "" if self._maxima is None else self._maxima.refusal(node)
            if not why:
                return f"{self.rules.maxima[0]}: {name}"
        elif places == {0} and name in self.rules.functions:
            why = self.rules.refusal(node)
            if not why:
                return f"{self.rules.functions[name][0]}: {name}"
        raise self._without_rule(node, why, owners, parts)

    def _without_rule(
        self, node: fx.Node, why: str, owners: Mapping[fx.Node, str], parts: nn.Module
    ) -> InputError:
        owner = owners.get(node, "")
        part = parts.get_submodule(owner)
        where = f"{owner!r}, a {type(part).__name__}" if owner else f"a {type(part).__name__}"
        operation = f"the operation {name_of(node)}{', ' + why if why else ''}"
        return InputError(
            f"{self.rules.method} has no rule for {where}: {operation}; take "
            "integrated-gradients, which needs gradients only"
        )

    def _run(self, node: fx.Node, args: Any, kwargs: Any, *, ledger: Ledger) -> Any:
        """Run an operation on the path so that its rule is applied on the way back."""
        target: Any = node.target
        said, name = self._named.get(node), name_of(node)
        if name in self.rules.functions or name in MAXIMA:
            rule = self.rules.maxima[1] if name in MAXIMA else self.rules.functions[name][1]

            def function(values: torch.Tensor) -> torch.Tensor:
                found: Any = target(values, *args[1:], **kwargs)
                return cast(torch.Tensor, found[0] if isinstance(found, tuple) else found)

            def count(gradient: torch.Tensor) -> torch.Tensor:
                ledger.applied[str(said)] += 1
                return gradient

            found = function(args[0]) if rule is None else replaced(args[0], function, rule)
            found = seen(found, count)
            several = len(target._schema.returns) > 1
            return (found, None) if several else found
        found = call(node, args, kwargs)
        if self.rules.epsilon is None or not (name in MIXING or has_constants(node, self._path)):
            return found
        values = found[0] if isinstance(found, tuple) else found
        constant = self._constant(node, args, kwargs)
        kept = partial(self._stabilise, said, values.detach(), constant, ledger)
        values = seen(values, kept)
        return (values, *found[1:]) if isinstance(found, tuple) else values

    def _stabilise(
        self,
        said: str | None,
        values: torch.Tensor,
        constant: torch.Tensor | None,
        ledger: Ledger,
        upstream: torch.Tensor,
    ) -> torch.Tensor:
        """Return the gradient with the stabiliser; enter what it and the constants keep."""
        gradient = upstream
        if said is not None:
            ledger.applied[said] += 1
            sign = torch.where(values < 0, -1.0, 1.0).to(values)
            gradient = upstream * (values / (values + float(self.rules.epsilon or 0) * sign))
            gradient = torch.where(torch.isfinite(gradient), gradient, upstream)
            ledger.keep(values, upstream - gradient)
        if constant is not None:
            known = torch.where(gradient == 0, 0.0, constant)  # what is overwritten may be anything
            ledger.keep(known, gradient)
        return gradient

    def _constant(self, node: fx.Node, args: Any, kwargs: Any) -> torch.Tensor | None:
        """Return what an operation that is linear up to a constant gives for 0."""
        if not has_constants(node, self._path):
            return None
        on_path = set(node.all_input_nodes) & self._path.keys()

        def silence(each: Any, value: Any) -> Any:
            if isinstance(each, fx.Node):
                return torch.zeros_like(value) if each in on_path else value
            if isinstance(each, list | tuple):
                return [silence(a, b) for a, b in zip(each, value, strict=True)]
            return value

        with torch.no_grad():
            empty = [silence(each, value) for each, value in zip(node.args, args, strict=True)]
            found = call(node, empty, kwargs)
        return cast(torch.Tensor, found[0] if isinstance(found, tuple) else found)

    # --- proof ------------------------------------------------------------------------------

    def _compare(self, function: Function, images: torch.Tensor) -> None:
        """Refuse a network that does not give what its operations give, output and gradient."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(images.shape, generator=generator).to(images)
        both = []
        with torch.enable_grad():
            for run in (function, Interpreter(self._graph, call, self._path).run):
                values = noise.clone().requires_grad_(True)
                found = run(values)
                weights = torch.linspace(1, 2, found.shape[1]).to(found)
                gradient = torch.autograd.grad((found * weights).sum(), values, allow_unused=True)
                both.append((found.detach(), gradient[0]))
        for what, first, second in zip(("output", "gradient"), *both, strict=True):
            if first is None or second is None:
                same = first is second
            else:
                limit = 1e-4 * float(first.abs().max()) + 1e-12
                same = bool(((first - second).abs() <= limit).all())
            if not same:
                raise InputError(
                    f"{self.rules.method} cannot follow the network: its {what} is not that of "
                    "its operations one by one (something detached, a hook, or a derivative of "
                    "its own making); take integrated-gradients, which needs gradients only"
                )

    def _check_halves(
        self, images: torch.Tensor, owners: Mapping[fx.Node, str], parts: nn.Module
    ) -> None:
        """Refuse functions whose first half is not that of the images, as where axes are swapped.

        It must be the same whatever the baselines are.
        """
        generator, sums = torch.Generator().manual_seed(0), list[dict[fx.Node, torch.Tensor]]()
        noise = torch.rand((3, *images.shape), generator=generator).to(images)
        half = len(images) // 2
        for second in noise[1:]:
            found: dict[fx.Node, torch.Tensor] = {}

            def note(node: fx.Node, args: Any, kwargs: Any, *, kept: Any = found) -> Any:
                if node in self._named:
                    kept[node] = args[0].detach().chunk(2)[0].double().sum()
                return call(node, args, kwargs)

            with torch.no_grad():
                shown = torch.cat([noise[0][:half], second[half:]])
                Interpreter(self._graph, note, self._path).run(shown)
            sums.append(found)
        for node, first in sums[0].items():
            if not torch.isclose(first, sums[1][node], rtol=1e-6, atol=0, equal_nan=True):
                why = "whose first axis is not that of the images"
                raise self._without_rule(node, why, owners, parts)

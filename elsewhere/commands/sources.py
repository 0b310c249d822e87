"""Sources as commands name them: a recording's file, or a model that is swept live."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elsewhere.errors import InputError, StorageError
from elsewhere.options import CostOptions, ModelOptions, StimulusOptions, choose
from elsewhere.registry import is_source
from elsewhere.terminal import called, counted, say
from elsewhere.tokens import TOKEN_PARTS

if TYPE_CHECKING:
    from elsewhere.recording import Sweep
    from elsewhere.storage.recording import Recording


def is_file(source: str) -> bool:
    """Return whether `source` means a file rather than a model."""
    from elsewhere.storage.files import is_file as is_file_there

    path = Path(source)
    if path.suffix in (".safetensors", ".json", ".py") or is_source(source.rpartition(":")[0]):
        return False  # a checkpoint, or a network in a file of Python
    named = path.suffix in {".h5", ".hdf5", ".nc"} or "/" in source or source in (".", "..")
    return named or is_file_there(path)


def open_source(path: Path, *, allow_partial: bool = False) -> Recording:
    """Open a recording; a folder is refused; what share is there of an unfinished one is said."""
    from elsewhere.storage import open_recording
    from elsewhere.storage.files import is_folder

    if is_folder(path):
        raise StorageError(f"{path} is a folder; expected a recording such as run.h5")
    recording = open_recording(path, allow_partial=allow_partial)
    if recording.share < 1:
        shape = " x ".join(map(str, recording.design.shape))
        say(
            f"{path} is not finished: {recording.share:.1%} of it is there, of which {shape} "
            "locations with every object are taken"
        )
    return recording


@contextlib.contextmanager
def open_any(
    source: str,
    network: ModelOptions,
    stimuli: StimulusOptions,
    cost: CostOptions,
    layers: list[str] | None,
    *,
    allow_partial: bool,
    tokens: str = "all",
) -> Iterator[tuple[Any, list[str] | None]]:
    """Open a recording, or sweep a model; yield it and its layers that are named, if some are."""
    cost.check(source)
    choose("part of the tokens", tokens, TOKEN_PARTS)
    if not is_file(source):
        if allow_partial:
            raise InputError("--allow-partial is for recordings; leave it out, or name one")
        network.check(source, *(layers or ()))
        stimuli.check(source)
        cost.set_threads()
        from elsewhere.recording.sharing import share_out

        model = network.load(source)
        sweep = stimuli.build(source, model, layers, network.seed, cost.engine, tokens)
        say(describe(sweep, sweep.layers))
        shared = share_out(sweep, cost.sharing, cost.scheduler)
        yield shared, [layer.name for layer in sweep.layers] if layers else None
        return
    shared_out = cost.shared and not cost.devices
    live = ["--engine"] * (cost.engine != "auto") + ["--workers or --scheduler"] * shared_out
    live += ["--tokens"] * (tokens != "all")
    open_here = ("--seed", "--device", "--reference", "--trust-factory")
    live += [name for name in (*network.given, *stimuli.given) if name not in open_here]
    if live:
        raise InputError(
            f"{source} is a file, recorded as it is: {', '.join(live)} would change nothing; "
            "leave out what belongs to a live sweep, or name a model"
        )
    if network.device != "auto":  # nothing runs on it, yet it has to be one
        from elsewhere.models.model import name_device

        name_device(network.device)
    with open_source(Path(source), allow_partial=allow_partial) as recording:
        cost.set_threads()
        chosen = match_layers(recording, layers) if layers else None
        if stimuli.reference is None:
            yield recording, chosen
            return
        place = recorded_reference(recording, stimuli.reference)
        with recording.at(place) as moved:
            yield moved, chosen


def recorded_reference(recording: Recording, text: str) -> tuple[int, int]:
    """Return the location that `text` names on a recording's canvas and grid."""
    from elsewhere.stimuli import Canvas, Grid, parse_location

    header = recording.attributes
    canvas = Canvas(int(header["canvas"]), int(header["object_size"]))
    return parse_location(text, canvas, Grid(*recording.design.axes.moving.values))


def match_layers(recording: Recording, patterns: Sequence[str]) -> list[str]:
    """Return the names of a recording's layers that names or globs mean."""
    from elsewhere.models import matching

    names: list[str] = []
    known = [(layer.name, layer.module) for layer in recording.layers]
    for wanted in filter(None, map(str.strip, ",".join(patterns).split(","))):
        found = [recording.layers[n].name for n in matching(wanted, known)]
        names += found or [recording.layer(wanted).name]
    if not names:
        raise InputError("no layer is asked for; name at least one, or leave the option out")
    return list(dict.fromkeys(names))


def names_result(path: Path) -> bool:
    """Return whether a file is a result, by its name, or by its stamp where that says nothing."""
    from elsewhere.storage.admission import look

    if path.suffix in {".h5", ".hdf5", ".nc"} or not path.is_file():
        return path.suffix == ".nc"
    with contextlib.suppress(StorageError):
        return look(path, "probe")[0] == "result"
    return False


def describe(sweep: Sweep, wanted: Any) -> str:
    """Return in one line what is swept."""
    shape = " x ".join(map(str, sweep.design.shape))
    return (
        f"{called(sweep.model)}, {counted(len(sweep.objects), 'object')} of "
        f"{sweep.canvas.object_size} px at {shape} locations of a {sweep.canvas.size} px canvas; "
        f"engine {sweep.choice}; {counted(len(wanted), 'layer')}"
    )


def check_room(
    out: Path,
    source: Any,
    layers: Sequence[str] | None,
    *,
    places: int = 1,
    measures: int = 0,
    table: Path | None = None,
    readout: Path | None = None,
) -> None:
    """Refuse the result of a recording or sweep that will not fit the disk, before any work.

    Parameters
    ----------
    out
        The netCDF file to write.
    source
        The recording or sweep.
    layers
        Names of its layers; all by default.
    places
        How many locations all others are held against, one by one.
    measures
        How many values there are for each two locations.
    table
        The table of them to write, too.
    readout
        The readout of the last of these layers to write, too.
    """
    from elsewhere.storage import check_result_room, result_bytes, table_bytes

    chosen = [layer for layer in source.layers if layers is None or layer.name in layers]
    n_objects, n_positions = len(source.design.objects), source.design.n_positions
    each = places * n_objects + measures * n_positions
    n_values, beside = len(chosen) * n_positions * each, {}
    if table is not None:
        beside[table] = table_bytes(table, n_values)
    if readout is not None:
        n_weights = len(set(source.design.categories)) * math.prod(chosen[-1].shape)
        beside[readout] = result_bytes(n_weights // 2)  # of single precision
    check_result_room(out, n_values, beside=beside)

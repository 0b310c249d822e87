"""`attribute`: maps of a sweep, object by object, so that a killed run goes on where it stood."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray

from elsewhere.analyzer.attribution.cost import cost_of
from elsewhere.analyzer.attribution.methods import methods
from elsewhere.analyzer.attribution.objects import ObjectRun
from elsewhere.analyzer.attribution.settings import AttributionSettings
from elsewhere.analyzer.attribution.sharing import ObjectJob, fields_of, numerics_of
from elsewhere.analyzer.attribution.summaries import check_joinable, join, summarise
from elsewhere.analyzer.attribution.targets import LinearTarget, true_classes
from elsewhere.errors import EngineError, ExistsError, InputError, StorageError
from elsewhere.logs import get_logger
from elsewhere.measures.behaviour import differing
from elsewhere.models.machine import versions_of
from elsewhere.protocols import Progress
from elsewhere.recording import Sweep
from elsewhere.recording.sharing import are_alone
from elsewhere.recording.workers import Workers, perform
from elsewhere.sources import restarting
from elsewhere.storage import check_output, load_result, save_result
from elsewhere.storage.files import remove_leftovers
from elsewhere.storage.merge import portion_name
from elsewhere.storage.parts import Parts, begun_by, parts_folder
from elsewhere.storage.results import read_dataset, to_bytes
from elsewhere.types import format_bytes, parse_bytes

logger = get_logger(__name__)


@restarting
def attribute(
    sweep: Sweep,
    settings: AttributionSettings | None = None,
    *,
    classes: Sequence[str] | None = None,
    others: Sequence[xarray.Dataset] = (),
    path: str | Path | None = None,
    overwrite: bool = False,
    max_memory: int | str = "2GiB",
    workers: Workers = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
    command: str = "",
    announce: Callable[[str], None] | None = None,
) -> xarray.Dataset:
    """Return what in the picture drives a network's answer, for every object at every location.

    Parameters
    ----------
    sweep
        The network, objects, canvas, grid and reference. Its layers play no part; its engine is
        that of methods that cover windows, others take whole passes.
    settings
        Method, target and what is kept.
    classes
        Names of the head's classes, unit by unit, such as a checkpoint's card holds; without
        them, nothing is known of what is right.
    others
        Results of this network over y and x that are joined, see :func:`join`.
    path
        The netCDF file to write. Until it is finished, its parts, one for each object, lie in
        ``path.parts``; the same call goes on with them.
    overwrite
        Whether an existing file is replaced, after the new one is finished.
    max_memory
        Bytes that a pass through the network may take, and that all maps together may.
    workers
        Local processes that share the objects, or their devices; they need `path`.
    scheduler
        Address of a Dask scheduler, whose workers share them instead; they see the same files.
    progress
        Called with images done and in all.
    command
        The command line, for provenance.
    announce
        Called before anything is made, with what it costs in words.

    Returns
    -------
    xarray.Dataset
        ``attribution (object, y, x, height, width)``: maps in the object's frame, summed over
        colours and divided by ``scale (object, y, x)``, NaN off the canvas; ``height`` and
        ``width`` count px from the first of the object's box. ``equivariance (metric, object, y,
        x)`` with the map at the reference, ``equivariance_cross (metric, y, x)`` with those of
        other objects; ``mass_inside``, ``centre_distance``, ``entropy`` and others. Means over
        objects with their intervals end in ``_mean``, over locations but the reference in
        ``_away``.

    Raises
    ------
    InputError
        Something that cannot be attributed like that.
    ExistsError, StorageError
        The file exists, or cannot be written.

    References
    ----------
    Kokhlikyan et al. (2020), Captum: a unified and generic model interpretability library for
    PyTorch, arXiv:2009.07896, for the methods. That maps are compared in the object's frame is
    this package's.
    """
    settings = AttributionSettings() if settings is None else settings
    limit = parse_bytes(max_memory)
    shared = not are_alone(workers, scheduler)
    if shared and path is None:
        raise InputError("processes share a run through its parts; name the file (path) it goes to")
    if path is not None and (overwrite or not Path(path).is_file()):
        check_output(Path(path), overwrite=overwrite, room=_size(sweep, settings) // 4)
    check_memory(2 * _size(sweep, settings), limit, len(sweep.objects), sweep.design.n_positions)
    if isinstance(settings.target, LinearTarget):
        classes = settings.target.classes
    for other in others:
        check_joinable(
            other,
            weights_sha256=sweep.model.weights_sha256,
            behaviour=sweep.conduct.output_at(sweep.canvas.size),
            canvas=sweep.canvas.size,
            y=sweep.grid.y,
            x=sweep.grid.x,
        )
    if path is not None and not overwrite:
        _go_on_as_begun(sweep, Path(path))
    run = ObjectRun(sweep, settings, classes=classes, max_memory=limit)
    n_objects, total = len(sweep.objects), len(sweep.objects) * sweep.design.n_positions
    done = 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        if progress is not None:
            progress(done, total)

    def say_cost(n_objects: int) -> None:
        if announce is not None and n_objects:
            announce(str(cost_of(run, n_objects * sweep.design.n_positions)))

    if path is None:
        say_cost(n_objects)
        found = [run.measure(number, progress=count) for number in range(n_objects)]
        return _finish(found, run, classes, others)
    path, fields = Path(path), fields_of(run)
    identity = _identity(fields, others)
    if path.is_file() and not overwrite:
        return _complete(path, fields, identity, run)
    behaviour = run.conduct.behaviour
    with Parts(path, fields, behaviour=behaviour, overwrite=overwrite) as parts:
        finished = parts.done()
        done = len(finished) * sweep.design.n_positions
        with _swept_if_vain(parts, sweep):
            left = [number for number in range(n_objects) if number not in finished]
            say_cost(len(left))
            if shared:
                folder = parts.folder.resolve()
                claim = dataclasses.replace(parts.claim, folder=folder)
                job = ObjectJob(sweep, settings, classes, limit, folder, claim)
                perform(
                    job, left, workers=workers, scheduler=scheduler,
                    done=lambda _, images: count(images),
                )  # fmt: skip
                left = []
            for number in left:
                shard = run.measure(number, progress=count)
                parts.write_portion(number, to_bytes(shard))
        found = [_read(parts, number) for number in range(n_objects)]
        result = _finish(found, run, classes, others).assign_attrs(identity=identity)
        if command:
            result.attrs["command"] = command
        save_result(result, path, overwrite=overwrite, rescue=True)
        parts.discard()
    return result


def _go_on_as_begun(sweep: Sweep, path: Path) -> None:
    """Take whole passes where ``auto`` has the choice, and what is there was made so."""
    engine = begun_by(path)
    if not engine and path.is_file():
        with contextlib.suppress(StorageError):
            engine = load_result(path).attrs.get("engine", "")
    if engine == "dense":
        sweep.step_aside("what is there was made by whole passes")


@contextlib.contextmanager
def _swept_if_vain(parts: Parts, sweep: Sweep) -> Iterator[None]:
    """Leave no parts behind when the first object already fails, or another engine begins anew."""
    try:
        yield
    except Exception as error:
        if not parts.done() or (isinstance(error, EngineError) and sweep.engine == "auto"):
            parts.discard()
        raise


def _identity(fields: dict[str, Any], others: Sequence[xarray.Dataset]) -> str:
    """Return the SHA-256 of all that decides a result: of the run, and of what is joined to it."""
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode())
    for other in others:
        for name in sorted(map(str, other.variables)):
            digest.update(name.encode() + np.ascontiguousarray(other[name].values).tobytes())
    return digest.hexdigest()


def _complete(path: Path, fields: dict[str, Any], identity: str, run: ObjectRun) -> xarray.Dataset:
    """Return the result that is there, if it is the one that is asked for.

    The parts of a run that was killed after its result got its name are removed.

    Raises
    ------
    ExistsError
        It is another one.
    """
    remedy = "choose another name or pass --overwrite"
    try:
        result = load_result(path)
    except StorageError as error:
        raise ExistsError(f"{path} exists already and is no result ({error}); {remedy}") from error
    if result.attrs.get("identity") != identity:
        raise ExistsError(
            f"{path} exists already and is another result (of another network, other objects or "
            f"settings, or by other code or numerics); {remedy}"
        )
    now = run.conduct.output_at(run.sweep.canvas.size)
    if differing(result.attrs.get("behaviour") or {}, now):
        raise ExistsError(
            f"{path} exists already, and its network did something else with the same image, "
            "although it has the same name, code and weights (a constant of a module, a closure or "
            f"an unsaved buffer?); {remedy}"
        )
    remove_leftovers(path.parent)
    if parts_folder(path).is_dir():
        with contextlib.suppress(ExistsError), Parts(path, fields) as parts:
            parts.discard()
    logger.info("%s is already complete", path)
    return result


def _size(sweep: Sweep, settings: AttributionSettings) -> int:
    """Return the bytes of all maps."""
    return len(sweep.objects) * sweep.design.n_positions * settings.map_bytes(sweep.canvas)


ASKED = ("options", "baseline", "margin", "seed", "extras", "n_perturbations")


_SUMS = ("completeness_error", "completeness_share", "reference_completeness_share")


def check_memory(
    needed: int, limit: int, n_objects: int, n_positions: int, n_checkpoints: int = 1
) -> None:
    """Refuse maps that would not fit the memory, before anything is computed."""
    if needed > limit:
        several = f" and {n_checkpoints} checkpoints" if n_checkpoints > 1 else ""
        raise InputError(
            f"maps of {n_objects} objects at {n_positions} locations{several} take about "
            f"{format_bytes(needed)}, above --max-memory {format_bytes(limit)}; take a coarser "
            "grid, a smaller margin, fewer objects or phases, or more memory"
        )


def versions() -> dict[str, str]:
    """Return the versions of what makes maps."""
    return versions_of("elsewhere", "torch", "captum", "numpy")


def _read(parts: Parts, number: int) -> xarray.Dataset:
    return read_dataset(parts.folder / portion_name(number))


def _finish(
    found: Sequence[xarray.Dataset],
    run: ObjectRun,
    classes: Sequence[str] | None,
    others: Sequence[xarray.Dataset],
) -> xarray.Dataset:
    """Join the objects and add what follows from all of them."""
    sweep, settings = run.sweep, run.settings
    joined = xarray.concat(found, dim="object", join="exact", combine_attrs="drop")
    joined = joined.assign_coords(
        object=list(sweep.objects.ids),
        category=("object", list(sweep.objects.categories)),
        y=("y", list(sweep.grid.y), {"units": "px"}),
        x=("x", list(sweep.grid.x), {"units": "px"}),
        height=("height", run.frame.offsets, {"units": "px"}),
        width=("width", run.frame.offsets, {"units": "px"}),
    )
    numbers = true_classes(classes, sweep.objects.categories)
    predicted = joined["predicted"]
    if int(predicted.max()) < 0:
        joined = joined.drop_vars("predicted")
    elif numbers is not None:
        joined["correct"] = predicted == xarray.DataArray(numbers, dims="object")
    for name in (*_SUMS, "kept_relevance", "baseline_score"):
        if bool(joined[name].isnull().all()):
            joined = joined.drop_vars(name)
    if not int(joined["n_steps"].max()):
        joined = joined.drop_vars("n_steps")
    joined["patch"] = (
        ("object", "box_y", "box_x", "rgb"),
        sweep.objects.patches(run.scenes.color),
    )
    joined["mask"] = (("object", "box_y", "box_x"), sweep.objects.masks)
    provenance = {
        **{f"reference_{n}": v for n, v in zip(sweep.design.names, sweep.reference, strict=True)},
        **sweep.provenance,
    }
    options = settings.fields(sweep.canvas)
    joined.attrs = {
        "kind": "attribution",
        "method": settings.method,
        "target": run.target.name,
        "layer": settings.layer or "",
        **{name: options[name] for name in ASKED},
        "measured_with": versions(),
        "rules": dict(run.explainer.counts),
        "tolerance": run.explainer.tolerance if run.explainer.method.complete else 0.0,
        "warning": methods.get(settings.method).warning,
        "n_objects": len(sweep.objects),
        "n_categories": len(sweep.objects.category_names),
        **provenance,
        "notes": run.notes,
        "engine": run.choice.name,
        "engine_reason": run.choice.reason,
        "numerics": numerics_of(run),
    }
    result = summarise(joined)
    return join(result, others) if others else result

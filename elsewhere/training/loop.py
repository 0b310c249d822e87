"""`train`: a curriculum to a directory of checkpoints and metrics."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from elsewhere.errors import InputError, StorageError
from elsewhere.logs import get_logger
from elsewhere.models import Model, find_device
from elsewhere.models.forward import check_precision
from elsewhere.models.heads import find_head
from elsewhere.models.machine import using_threads
from elsewhere.models.memory import Memory
from elsewhere.storage.files import is_file, make_inside, remove_leftovers
from elsewhere.training.card_notes import note_of_loss
from elsewhere.training.checkpoints import final_card, list_checkpoints, read_weights
from elsewhere.training.curriculum import Curriculum
from elsewhere.training.folders import adjusted
from elsewhere.training.heads import order_units, replace_head
from elsewhere.training.initial_network import (
    Units,
    check_phases,
    default_norms,
    has_new_head,
    start_card,
    start_model,
    start_notes,
)
from elsewhere.training.metrics import MetricsLog, ReportProgress
from elsewhere.training.optimisation import (
    find_dropout,
    set_dropout,
)
from elsewhere.training.resolution import ResolvedPhase, resolve
from elsewhere.training.run_directory import (
    IN_USE,
    RUN,
    Begun,
    begin_run,
    check_room,
    lock_run,
    open_run,
)
from elsewhere.training.seeds import derive_seed, own_generators
from elsewhere.training.stage import Stage, Surroundings
from elsewhere.training.state import RunState, write_state

logger = get_logger(__name__)

SAVE_EVERY = 15.0


def train(
    curriculum: Curriculum,
    out: str | Path,
    *,
    device: str = "auto",
    progress: ReportProgress | None = None,
    seed: int | None = None,
    axes: Sequence[str] = (),
    resume: bool = True,
    data_dir: Path | None = None,
    tensorboard: bool = False,
    save_every: float = SAVE_EVERY,
    threads: int | None = None,
    trust: Collection[str] = (),
) -> Path:
    """Train a network through the phases of a curriculum.

    `out` then holds ``curriculum.json``, ``metrics.jsonl`` and ``checkpoints/PHASE-STEP`` as
    ``.safetensors`` with a ``.json`` card each. A run that was killed goes on where it stood, and
    ends with the same weights on the same machine: the number of threads, on which they depend, is
    part of a run, which goes on with as many as it was begun with.

    Parameters
    ----------
    curriculum
        What to train.
    out
        The directory; it is made where there is none.
    device
        ``auto``, ``cpu``, ``cuda``, ...
    progress
        Called now and then with a :class:`Report`.
    seed
        Instead of the curriculum's.
    axes
        Axes that change the objects, such as ``scale=0.5:2:5``, instead of those of all phases.
    resume
        Whether a run in `out` goes on; else it is refused.
    data_dir
        The folder of the object sets that are not made here.
    tensorboard
        Whether scalars also go to TensorBoard files; needs the extra.
    save_every
        Seconds between two states from which a killed run can go on, at least.
    threads
        Of the CPU; as many as torch has by default, or as the run was begun with.
    trust
        Factories (``package.module:factory``) that may be built where the file of the curriculum,
        or the card of a checkpoint that it starts from, names them; see docs/security.md.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    CurriculumError
        What cannot be trained as it is written, before anything is.
    ExistsError
        `out` holds the run of another curriculum, seed, number of threads, or of other pictures.
    StorageError
        Another process trains it, the checkpoints do not fit the disk, or it cannot be written.
    TrainingError
        The loss or the weights are not finite any more.
    """
    curriculum = adjusted(curriculum, seed=seed, axes=axes)
    place = find_device(device)
    directory = Path(out)
    fingerprint = curriculum.fingerprint
    with contextlib.ExitStack() as stack:
        is_begun = is_file(directory / RUN)
        if is_begun:
            stack.enter_context(lock_run(directory))
        begun, state = open_run(directory, curriculum, fingerprint, resume=resume)
        started = start_card(curriculum, trust=trust)
        past = None if started is None else started.past
        resolved = resolve(curriculum, data_dir=data_dir, past=past)
        run = Begun.now(place, resolved, threads=threads, earlier=begun, directory=directory)
        if state.phase >= len(curriculum.phases):
            logger.info("%s is finished", directory)
            return directory
        stack.enter_context(_plain_numerics(place))
        model = start_model(curriculum, trust=trust).to(place)
        for index, each in enumerate(curriculum.phases):
            try:
                check_precision(place, each.precision or curriculum.network.precision)
            except InputError as error:
                raise curriculum.error(("phase", index, "precision"), error) from error
        units = check_phases(curriculum, resolved, model, started)
        check_room(directory, resolved, model)
        if not is_begun:
            make_inside(directory, "checkpoints")
            stack.enter_context(lock_run(directory))
            if is_file(directory / RUN):
                raise StorageError(IN_USE.format(directory))
        remove_leftovers(make_inside(directory, "checkpoints"))
        stack.enter_context(using_threads(run.threads))
        state_now = model.module.state_dict()
        initial = {name: value.to("cpu", copy=True) for name, value in state_now.items()}
        frozen = frozenset(n for n, p in model.module.named_parameters() if not p.requires_grad)
        dropout = find_dropout(model.module)
        memory = Memory(model.module, hooks=True)
        if state.unwritten and note_of_loss(state.unwritten) not in run.notes:
            run = dataclasses.replace(run, notes=(*run.notes, note_of_loss(state.unwritten)))
        if begun is None or len(run.notes) > len(begun.get("notes", ())):
            begin_run(directory, curriculum, fingerprint, run)
        log = MetricsLog(
            directory / "metrics.jsonl", size=state.metrics_bytes, tensorboard=tensorboard
        )
        stack.callback(log.close)
        notes = [
            [*run.notes, *model.doubts, *start_notes(curriculum, p, started, model)]
            for p in resolved
        ]
        around = Surroundings(
            *(curriculum, default_norms(curriculum, started), fingerprint, directory, place, log),
            *(progress, save_every, notes),
        )
        stack.enter_context(own_generators(place))
        for phase in resolved[state.phase :]:
            logger.info("phase %s: %d steps at most", phase.name, phase.steps)
            # weights alone pass from phase to phase: checkpoints hold nothing else
            memory.restore()
            model = _at_start(model, phase, resolved, curriculum, (initial, units), directory)
            # an earlier phase may have changed both
            set_dropout(model.module, dropout)
            _restore_frozen(model, frozen, curriculum, resolved, phase)
            Stage(phase, model, state, around).run()
            state = RunState(state.run, phase=phase.index + 1, metrics_bytes=log.sync())
            write_state(directory / "state.pt", state)
    return directory


def _at_start(
    model: Model,
    phase: ResolvedPhase,
    resolved: Sequence[ResolvedPhase],
    curriculum: Curriculum,
    initial: tuple[Mapping[str, torch.Tensor], Units],
    directory: Path,
) -> Model:
    """Return the network as a phase finds it: its units are the phase's classes."""
    if phase.previous is None:
        state, units = dict(initial[0]), initial[1]
    else:
        previous = resolved[phase.previous]
        state = read_weights(final_card(list_checkpoints(directory), previous.name))
        units = previous.categories
    n_units = units if isinstance(units, int) else len(units)
    if find_head(model)[1].out_features != n_units:
        model = replace_head(model, n_units, seed=0)
    model.module.load_state_dict(state)
    if has_new_head(curriculum, phase):
        seed = derive_seed(phase.exemplar_seed, "head", phase.name)
        model = replace_head(model, len(phase.categories), seed=seed)
    elif not isinstance(units, int) and units != phase.categories:
        order_units(model, [units.index(name) for name in phase.categories])
    return model


def _restore_frozen(
    model: Model,
    frozen: Collection[str],
    curriculum: Curriculum,
    resolved: Sequence[ResolvedPhase],
    phase: ResolvedPhase,
) -> None:
    """Freeze what whoever built the network had frozen, but for a head that is new since."""
    chain = [phase]
    while chain[-1].previous is not None:
        chain.append(resolved[chain[-1].previous])
    new = any(has_new_head(curriculum, earlier) for earlier in chain)
    head = f"{find_head(model)[0]}."
    for name, parameter in model.module.named_parameters():
        parameter.requires_grad_(name not in frozen or (new and name.startswith(head)))


@contextmanager
def _plain_numerics(device: torch.device) -> Iterator[None]:
    """On CUDA: no TF32, and the same algorithms each time."""
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        yield

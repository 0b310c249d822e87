"""One phase, trained: blocks of steps, checks, reports, checkpoints, and the state in between.

All that is drawn in a block of steps depends on the seed and the block's number only, so that a
run that goes on from the start of a block does exactly what it would have done.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from elsewhere.errors import TrainingError
from elsewhere.logs import get_logger
from elsewhere.models import Model
from elsewhere.models.forward import (
    Paster,
    arrange,
    computing,
    exact,
    trains_channels_last,
)
from elsewhere.models.heads import find_logits, input_dtype
from elsewhere.models.machine import describe_machine, describe_precision
from elsewhere.training.batches import BLOCK, Presentations
from elsewhere.training.card_notes import MODES, Doubts, note_of_modes
from elsewhere.training.cards import Card
from elsewhere.training.checkpoints import checkpoint_path, save_checkpoint
from elsewhere.training.criteria import is_met, steps_to
from elsewhere.training.curriculum import BatchNorm, Curriculum
from elsewhere.training.frozen_trunk import TABLE, HeadTable, make_table
from elsewhere.training.heads import check_logits
from elsewhere.training.metrics import (
    CHECK,
    MetricsLog,
    Report,
    ReportProgress,
    diverged,
    report_steps,
)
from elsewhere.training.modes import look_at_modes
from elsewhere.training.optimisation import (
    Average,
    find_dropout,
    freeze,
    make_optimiser,
    schedule_factor,
    set_dropout,
)
from elsewhere.training.probe import ROWS, Probe, images_of_test
from elsewhere.training.rehearsal import failure
from elsewhere.training.resolution import ResolvedPhase
from elsewhere.training.seeds import (
    derive_seed,
    make_generator,
    own_generators,
    seed_own_generators,
)
from elsewhere.training.seen import digests, pack
from elsewhere.training.state import RunState, finite_names, write_state
from elsewhere.training.statistics import (
    Treatment,
    compare_modes,
    kept_buffers,
    measure_at_rest,
    measure_statistics,
    untouched,
)
from elsewhere.training.windows import (
    WHOLE,
    Way,
    WindowedForward,
    make_forward,
    whole_forward,
)

logger = get_logger(__name__)

WINDOW = 50
"""Loss and training accuracy are reported over so many steps."""
_STATE_SHARE = 20  # the state is written so seldom that it takes at most a 20th of the time
_STATE_SPEED = 2**28  # bytes a second, about, before one has been written
_TRAINED_LISTED = 64


@dataclass(frozen=True)
class Surroundings:
    """What the phases of a run have in common."""

    curriculum: Curriculum
    batch_norm: BatchNorm  # of phases that say nothing of it
    fingerprint: str
    directory: Path
    device: torch.device
    log: MetricsLog
    progress: ReportProgress | None
    save_every: float
    notes: Sequence[Sequence[str]]


class Stage:
    """Trains a network, with its head, through one phase.

    `state` says where to begin: its step, history, and tensors where the phase was interrupted.
    """

    _way: Way

    def __init__(
        self, resolved: ResolvedPhase, model: Model, state: RunState, surroundings: Surroundings
    ) -> None:
        self.resolved, self.phase, self.around = resolved, resolved.phase, surroundings
        self.device = device = surroundings.device
        self.state, self.step = state, state.step
        self.seed = derive_seed(resolved.exemplar_seed, "phase", resolved.name)
        self.model = model
        self.network: nn.Module = model.module
        self.precision = self.phase.precision or surroundings.curriculum.network.precision
        self._last = trains_channels_last(self.network, device, self.precision)
        order = torch.channels_last if self._last else torch.contiguous_format
        arrange(self.network, order)
        if self.phase.dropout is not None:
            layers = find_dropout(self.network)
            set_dropout(self.network, dict.fromkeys(layers, self.phase.dropout))
        tensors = self.network.state_dict().items()
        self._finite = finite_names(dict(tensors))
        default = surroundings.batch_norm
        self.norms = Treatment.of(surroundings.curriculum.network, self.phase, default)
        trainable = freeze(model, self.phase.trainable, self.norms)
        self.batch_norm = self.norms.done(self.network)
        self.optimiser = make_optimiser(model, self.phase, trainable)
        self.parameters = [self.network.get_parameter(name) for name in trainable]
        self.average = Average(self.parameters, self.phase.ema) if self.phase.ema else None
        window = max(WINDOW, self.phase.criterion.window if self.phase.criterion else 0)
        self.history: deque[tuple[float, float]] = deque(state.history, maxlen=window)
        self.criterion_step = state.criterion_step
        self._reports = report_steps(resolved.steps)
        self._load_objects(model)
        self._ask = self._next_ask(self.step)
        self._written = time.perf_counter()
        held = sum(value.numel() * value.element_size() for _, value in tensors)
        self._interval = self._apart(3 * held / _STATE_SPEED)
        self._seen = torch.zeros((BLOCK, 2), device=device)
        """Loss, and number of correct presentations, of the steps of a block."""
        if state.network:
            self._restore(state)

    def run(self) -> None:
        """Train to the end of the phase; its final checkpoint is written."""
        if self.step == 0 and not self.state.network:
            self._reach(0, final=False)
        ended = False
        while not ended:
            with exact(self.device, tf32=self.precision == "tf32"):  # in the pass back, too
                ended = self._block(self.step)
            if not ended and time.perf_counter() - self._written >= self._interval:
                self._save_state()

    # --- steps

    def _block(self, first: int) -> bool:
        """Train for a block of steps; return whether the phase has ended."""
        phase, steps = self.phase, self.resolved.steps
        count = min(BLOCK, steps - first)
        rows, locations = self._presentations.draw(first, count)
        generator = make_generator(derive_seed(self.seed, "appearance", first), self.device)
        seed_own_generators(derive_seed(self.seed, "dropout", first), self.device)
        checked = 0
        for place in range(count):
            chosen = rows[place]
            logits = self._run(chosen, locations[place], first + place, generator)
            self._update(logits, self._presentations.labels[chosen], first, place)
            done = first + place + 1
            checkpoint = done in self.resolved.checkpoints
            looked = checkpoint or done % CHECK == 0 or done == steps or done in self._reports
            if looked or done >= self._ask:
                self._look(first, checked, place + 1)
                checked, self.step = place + 1, done
                met = self._meets_criterion(done)
                self._ask = self._next_ask(done)
                final = done == steps or (met and bool(phase.criterion and phase.criterion.stop))
                if final or checkpoint or met or done in self._reports:
                    self._reach(done, final=final, keep=final or checkpoint or met)
                if final:
                    return True
        return False

    def _run(
        self, rows: torch.Tensor, locations: torch.Tensor, step: int, generator: torch.Generator
    ) -> torch.Tensor:
        """Return the logits; go over to whole canvases where the network has looked at them."""
        forward = self._way.forward
        with self._passing():
            if self._table is not None:
                output = self._table.logits(rows)
            else:
                output = forward(self._presentations.appearing(rows, generator), locations)
        if isinstance(forward, WindowedForward) and forward.missed:  # what it gave is right
            self._give_up_windows(
                f"windows up to step {step}, then on {WHOLE}: the image does not go straight "
                "through its first convolutions any more"
            )
        logits = check_logits(output, len(self.resolved.categories), self.model.name)
        return logits.float() if logits.dtype == torch.bfloat16 else logits

    def _computing(self) -> AbstractContextManager[None]:
        """Return what a pass forward runs in; it ends with each, as it keeps what it converts."""
        return computing(self.device, self.precision)

    @contextmanager
    def _passing(self) -> Iterator[None]:
        """Compute a batch as in training; say of which phase and network it is that fails."""
        try:
            with self._computing():
                yield
        except Exception as error:  # any network, any complaint
            said = failure(self.model, self.phase.batch, error)
            raise TrainingError(f"phase {self.phase.name!r}: {said}") from error

    def _give_up_windows(self, name: str) -> None:
        self._way = Way(whole_forward(self.network, self._paster), name, doubted=True)
        logger.info("phase %s: %s", self.phase.name, name)

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        with self._computing():
            return find_logits(self.network(images), self.model.name)

    def _update(self, logits: torch.Tensor, labels: torch.Tensor, first: int, place: int) -> None:
        phase, step = self.phase, first + place
        rate = phase.learning_rate * schedule_factor(phase, step, self.resolved.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        loss = functional.cross_entropy(logits, labels, label_smoothing=phase.label_smoothing)
        try:
            loss.backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise TrainingError(
                f"phase {phase.name!r}: {self.model.name} fails in the pass back ({reason}); "
                "expected a network on which loss.backward() works in plain torch"
            ) from error
        if phase.clip:
            nn.utils.clip_grad_norm_(self.parameters, phase.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            self._seen[place, 0] = loss.detach()
            self._seen[place, 1] = (logits.argmax(1) == labels).sum()
        if self.average is not None:
            self.average.update(step + 1)

    def _load_objects(self, model: Model) -> None:
        train, window = self.resolved.train, self.resolved.placement.canvas
        self._paster, paster = (
            Paster(
                canvas,
                model.transform,
                rows=rows,
                device=self.device,
                dtype=input_dtype(model),
                channels_last=self._last,
            )
            for canvas, rows in (
                (window, self.phase.batch),
                (self.around.curriculum.canvas, ROWS),
            )
        )
        self._presentations = Presentations(self.resolved, self._paster, seed=self.seed)
        if self.batch_norm == "recalibrated":
            with exact(self.device), self._passing():
                measure_at_rest(self.network, self._presentations.sample())
        unseen = train.seen_on(self._paster.color).notes
        self._pictures = pack(digests(train))
        self._unseen = [note.replace("left out", "among what is shown are") for note in unseen]
        with self._computing():
            shown = self._presentations.patches
            self._way = make_forward(self.network, self._paster, shown, training=True)
        self._table = self._tabulate(model)
        logger.info("phase %s runs on %s", self.phase.name, self._way.name)
        some = next(self._presentations.sample())
        self._doubts = Doubts(self.network, lambda: self._logits(some))
        self._noise, notes = look_at_modes(self.network, self._logits, some, self.norms.mode)
        for note in notes:
            self._doubts.add(note)
        if self.batch_norm == "frozen" and untouched(self.network):
            self._doubts.add(
                "batch_norm = 'frozen' keeps running statistics that nothing has gathered (all are "
                "0 and 1): its layers normalise nothing; write 'recalibrated'"
            )
        tests = len({*self.resolved.checkpoints, *self._reports})
        images = images_of_test(self.resolved.steps * self.phase.batch, tests)
        kept = None if self._table is None else self._table.trunk
        seed = derive_seed(self.seed, "probe")
        self._probe = Probe(self.resolved, paster, images=images, seed=seed, trunk=kept)

    def _tabulate(self, model: Model) -> HeadTable | None:
        """Return the table that a head alone is trained on; None where more is, or it won't do."""
        way, most = self._way.forward, self.resolved.steps * self.phase.batch
        with exact(self.device, tf32=self.precision == "tf32"), self._passing():
            table = make_table(model, self._presentations, way, self._paster, most=most)
        self._way = self._way if table is None else Way(way, TABLE)
        return table

    # --- looking, reporting, keeping

    def _look(self, first: int, start: int, stop: int) -> None:
        """Take the latest losses into the history; refuse what is not finite."""
        for place, (loss, correct) in enumerate(self._seen[start:stop].tolist()):
            if not np.isfinite(loss):
                done, what = first + start + place + 1, f"the loss is {loss}"
                raise diverged(self.around.directory, self.phase, done, what)
            self.history.append((loss, correct / self.phase.batch))

    def _meets_criterion(self, done: int) -> bool:
        """Return whether the criterion is met now, for the first time."""
        criterion = self.phase.criterion
        if criterion is None or self.criterion_step is not None:
            return False
        if not is_met(criterion, self.history, self.phase.batch):
            return False
        self.criterion_step = done
        return True

    def _next_ask(self, done: int) -> float:
        """Return the first step at which the criterion could be met; infinite where none can.

        The counts lie on the device, and looking at them waits for it; no earlier look is needed.
        """
        criterion = self.phase.criterion
        if criterion is None or self.criterion_step is not None:
            return np.inf
        return done + steps_to(criterion, self.history, self.phase.batch, done)

    def _reach(self, done: int, *, final: bool, keep: bool = True) -> None:
        """Test, report and keep what the network is after `done` steps."""
        keep = keep and (done > 0 or 0 in self.resolved.checkpoints)
        recent = list(self.history)[-WINDOW:]
        loss, train_accuracy = np.mean(recent, axis=0).tolist() if recent else (None, None)
        # what comes next does not depend on what is looked at
        with own_generators(self.device), self._doubts.memory.kept():
            seed_own_generators(derive_seed(self.seed, "report", done), self.device)
            with self._as_tested(done):
                self._report(done, loss, train_accuracy, final, keep)

    @contextmanager
    def _as_tested(self, done: int) -> Iterator[None]:
        """While active, the network has the averaged weights, and statistics that are theirs."""
        measured = self.batch_norm == "recalibrated" or (self.average is not None and done > 0)
        with kept_buffers(self.network), contextlib.ExitStack() as stack:
            if self.average is not None:
                self.average.swap()
                stack.callback(self.average.swap)
            if measured:
                with self._passing():
                    measure_statistics(self.network, self._presentations.sample())
            yield

    def _report(
        self, done: int, loss: float | None, train: float | None, final: bool, keep: bool
    ) -> None:
        with self._computing():
            accuracies = self._probe.measure(self.network).values()
        if keep:
            latest = partial(self._presentations.latest, done)
            modes = compare_modes(self.network, self._logits, latest)
            accuracies |= {} if modes is None else dict(zip(MODES, modes, strict=True))
        rate = self.phase.learning_rate * schedule_factor(
            self.phase, max(done - 1, 0), self.resolved.steps
        )
        report = Report(
            self.phase.name,
            self.resolved.index,
            done,
            self.resolved.steps,
            loss,
            train,
            learning_rate=rate,
            **accuracies,
        )
        if keep:
            self._keep(done, train, accuracies, final)
        self.around.log.write(report)
        if self.around.progress is not None:
            self.around.progress(report)

    def _keep(self, done: int, train: float | None, found: dict[str, Any], final: bool) -> None:
        state = self.network.state_dict()
        finite = {*finite_names(state)}
        if lost := [name for name in self._finite if name not in finite]:  # -inf may be meant
            what = f"{lost[0]} is not finite"
            raise diverged(self.around.directory, self.phase, done, what)
        self._doubts.look()
        path = checkpoint_path(self.around.directory, self.phase.name, done)
        save_checkpoint(path, state, self._card(done, train, found, final))

    def _card(self, done: int, train: float | None, found: dict[str, Any], final: bool) -> Card:
        phase, resolved, curriculum = self.phase, self.resolved, self.around.curriculum
        transform, places = self.model.transform, None
        if resolved.placement.same_for_classes and resolved.placement.boxes.shape[1] == 1:
            places = [(int(y), int(x)) for y, x in resolved.placement.locations(0)]
        seen = resolved.past_after if phase.drawn_axes.each else resolved.past  # all variants
        listed = places is not None and len(places) <= _TRAINED_LISTED
        return Card(
            model=self.model.name,
            arguments=dict(self.model.arguments),
            **asdict(transform),
            canvas=curriculum.canvas,
            curriculum=curriculum.name,
            fingerprint=self.around.fingerprint,
            seed=curriculum.seed,
            phase=phase.name,
            phase_index=resolved.index,
            step=done,
            steps=resolved.steps,
            final=final,
            objects=phase.objects,
            split=phase.split,
            categories=resolved.categories,
            exemplars=phase.exemplars,
            exemplar_seed=resolved.exemplar_seed,
            environment=phase.environment,
            axes=phase.axes if phase.drawn_axes.each else (),
            trained=tuple(places) if places is not None and listed else None,
            learning_rate=phase.learning_rate,
            train_accuracy=train,
            **found,
            batch_norm=self.batch_norm,
            batch_norm_default=self.around.batch_norm,
            noise=self._noise,
            origin=self.model.origin,
            criterion_step=self.criterion_step,
            pictures=self._pictures,
            seen={view: pack(held) for view, held in seen.pictures.items()},
            classes=dict(resolved.past.classes),
            passes=self._way.name,
            notes=tuple(
                f"phase {phase.name}: {note}"
                for note in (
                    *self.around.notes[resolved.index],
                    *self._way.notes,
                    *self._doubts.notes,
                    *self._unseen,
                    *note_of_modes(found.get(MODES[0]), found.get(MODES[1]), self.batch_norm),
                )
            ),
            numerics={
                **describe_machine(self.device),
                **describe_precision(self.device, self.precision),
            },
        )

    # --- the state in between

    def _save_state(self) -> None:
        began = time.perf_counter()
        state = RunState(
            run=self.state.run,
            phase=self.resolved.index,
            step=self.step,
            metrics_bytes=self.around.log.sync(),
            history=list(self.history),
            criterion_step=self.criterion_step,
            network=self.network.state_dict(),
            optimiser=self.optimiser.state_dict(),
            average=[] if self.average is None else self.average.values,
            memory=self._doubts.memory.changed(),
            unwritten=self._doubts.memory.unwritten(),
            passes=self._way.name if self._way.doubted else "",
        )
        write_state(self.around.directory / "state.pt", state)
        self._written = time.perf_counter()
        self._interval = self._apart(self._written - began)

    def _apart(self, cost: float) -> float:
        """Return how many seconds lie between two states at least, where one takes `cost`."""
        return self.around.save_every and max(self.around.save_every, _STATE_SHARE * cost)

    def _restore(self, state: RunState) -> None:
        self.network.load_state_dict(state.network)
        self._doubts.memory.restore(state.memory)
        if state.passes:
            self._give_up_windows(state.passes)
        self.optimiser.load_state_dict(state.optimiser)
        if self.average is not None:
            for value, kept in zip(self.average.values, state.average, strict=True):
                value.copy_(kept)

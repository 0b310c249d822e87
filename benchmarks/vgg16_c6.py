"""A recipe for C6 on the scale vgg16: what further training at one location loses.

    python -m benchmarks.vgg16_c6 --out DIR [--data-dir DATA] [--device cuda] [--seconds 840]
        [--scale vgg16] [--seed 0] [--only NAME ...] [--max-steps N]

Pretraining and learning are those of the scale, trained as `elsewhere train` does into DIR where
they are not there yet (a run of the same curriculum in DIR/full is taken as it is), of a seed of
tuning. Then every recipe of `RECIPES` goes on from the same weights, at the one location and, as
its control, everywhere. The control is left out where nothing was lost, or where what was learnt is
lost as well. Evaluation is of the trained exemplars, in the precision of training, at 7x7 places
and the trained one.

It takes as many sittings of `--seconds` as it needs: training goes on from its latest state, a
recipe that ended is not tried again, and none is begun that takes longer than there is time. Every
try is listed in DIR/c6-SEED.jsonl, in the order in which they were made, those that failed or were
stopped as well. The status is 0 when nothing is left, else 1.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from elsewhere.models import Model, find_device
from elsewhere.models.forward import Paster, computing, evaluating, exact
from elsewhere.reproduction import load_scale, make_runs
from elsewhere.reproduction.scale import Scale
from elsewhere.stimuli import Grid, ObjectSet
from elsewhere.training import final_card, list_checkpoints, load_checkpoint, train
from elsewhere.training.batches import Presentations
from elsewhere.training.cards import Card
from elsewhere.training.curriculum import Curriculum, Phase
from elsewhere.training.optimisation import (
    Average,
    find_dropout,
    freeze,
    make_optimiser,
    schedule_factor,
    set_dropout,
)
from elsewhere.training.resolution import ResolvedPhase, resolve
from elsewhere.training.seeds import derive_seed, own_generators, seed_own_generators
from elsewhere.types import Location

SGD = {"optimiser": "sgd", "learning_rate": 1e-2}
RECIPES: dict[str, dict[str, Any]] = {
    "as it stands": {},
    "adam 7e-4": {"learning_rate": 7e-4},
    "adam 5e-4, smoothed labels": {"label_smoothing": 0.1},
    "sgd 1e-2": SGD,
    "adamw 3e-4, decay 3": {"optimiser": "adamw", "learning_rate": 3e-4, "weight_decay": 3.0},
    "sgd 3e-2": SGD | {"learning_rate": 3e-2},
    "adam 3e-4": {"learning_rate": 3e-4},
    "adam 1e-3": {"learning_rate": 1e-3},
    "sgd 1e-2, smoothed labels": SGD | {"label_smoothing": 0.1},
    "adam 3e-4, batches of 4, 4,000 steps": {"learning_rate": 3e-4, "batch": 4, "steps": 4000},
    "adamw 3e-4, decay 1": {"optimiser": "adamw", "learning_rate": 3e-4, "weight_decay": 1.0},
    "adam 5e-4, constant, 3,000 steps": {"schedule": "constant", "steps": 3000},
    "adam 5e-4, no clipping": {"clip": 0.0},
    "adam 5e-4, smoothed labels, 3,000 steps": {"label_smoothing": 0.1, "steps": 3000},
}
"""Keys of the phase ``further`` that differ from those of the scale."""

LOOKS = 4
"""So often a recipe is evaluated on its way."""
PER_CATEGORY = 5
LOST = 0.1
"""Less than that of far is no loss: no control is run."""


class System:
    """A network that has learnt, and what is asked of it again and again."""

    def __init__(self, card: Card, trained: Location, device: torch.device) -> None:
        self.model: Model = load_checkpoint(card).to(device)
        self.network: nn.Module = self.model.module
        self.card, self.trained, self.device = card, trained, device
        self.start = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.dropout = find_dropout(self.network)
        grid = Grid.parse("7x7", card.canvas)
        self.places = [(y, x) for y in grid.y for x in grid.x] + [trained]
        self.paster = Paster(
            card.canvas,
            self.model.transform,
            rows=len(self.places) * PER_CATEGORY,
            device=device,
            channels_last=True,
        )

    def reset(self) -> None:
        """Give the network its first weights."""
        self.network.load_state_dict(self.start)
        self.network.to(memory_format=torch.channels_last)
        set_dropout(self.network, self.dropout)

    def evaluate(self, objects: ObjectSet, precision: Any) -> tuple[float, float]:
        """Return the accuracy at the trained location, and far from it."""
        chosen = np.flatnonzero(objects.exemplar_index < PER_CATEGORY)
        patches = self.paster.load(objects.subset(chosen))
        labels = torch.from_numpy(objects.category_index[chosen]).to(self.device)
        places = torch.tensor(self.places, device=self.device)
        right = torch.zeros(len(places), device=self.device)
        with evaluating(self.network), computing(self.device, precision):
            for first in range(0, len(chosen), PER_CATEGORY):
                some = patches[first : first + PER_CATEGORY]
                shown = some.repeat_interleave(len(places), 0)
                canvases = self.paster.paste(shown, places.repeat(len(some), 1))
                found = self.network(canvases)[: len(shown)].argmax(1).view(len(some), -1)
                right += (found == labels[first : first + len(some), None]).sum(0)
        shares = (right / len(chosen)).tolist()
        side = self.card.canvas.object_size
        far = [
            share
            for (y, x), share in zip(self.places, shares, strict=True)
            if max(abs(y - self.trained[0]), abs(x - self.trained[1])) >= side
        ]
        return shares[-1], float(np.mean(far))


def go_on(system: System, resolved: ResolvedPhase, precision: Any) -> list[list[float]]:
    """Train further; return steps, on and far, each time that it was looked at."""
    phase, device, network = resolved.phase, system.device, system.network
    system.reset()
    if phase.dropout is not None:
        set_dropout(network, dict.fromkeys(system.dropout, phase.dropout))
    trainable = freeze(system.model, phase.trainable)
    optimiser = make_optimiser(system.model, phase, trainable)
    named = dict(network.named_parameters())
    parameters = [named[name] for name in trainable]
    average = Average(parameters, phase.ema) if phase.ema else None
    paster = Paster(
        system.card.canvas,
        system.model.transform,
        rows=phase.batch,
        device=device,
        channels_last=True,
    )
    seed = derive_seed(resolved.exemplar_seed, "phase", resolved.name)
    shown = Presentations(resolved, paster, seed=seed)
    looks, steps = [], resolved.steps
    wanted = {round(steps * part / LOOKS) for part in range(1, LOOKS + 1)}
    for step in range(steps):
        if step % 50 == 0:
            rows, places = shown.draw(step, min(50, steps - step))
            seed_own_generators(derive_seed(seed, "dropout", step), device)
        for group in optimiser.param_groups:
            factor = schedule_factor(phase, step, steps)
            group["lr"] = phase.learning_rate * factor * group["factor"]
        chosen = rows[step % 50]
        canvases = paster.paste(shown.patches[chosen], places[step % 50])
        with exact(device, tf32=precision == "tf32"):
            with computing(device, precision):
                logits = network(canvases)
            smoothing = phase.label_smoothing
            loss = functional.cross_entropy(
                logits.float(), shown.labels[chosen], label_smoothing=smoothing
            )
            loss.backward()  # type: ignore[no-untyped-call]
        if phase.clip:
            nn.utils.clip_grad_norm_(parameters, phase.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if average is not None:
            average.update(step + 1)
        if step + 1 in wanted:
            if average is not None:
                average.swap()
            looks.append([step + 1, *system.evaluate(resolved.train, precision)])
            if average is not None:
                average.swap()
    return looks


class Over(Exception):
    """The sitting is over; what is there is kept."""


def main() -> int:
    """Train what is missing, and try recipes; return 1 where some are left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=840.0)
    parser.add_argument("--scale", default="vgg16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=RECIPES, help="names of recipes")
    parser.add_argument("--max-steps", type=int, help="only to see that it runs")
    options = parser.parse_args()
    end = time.perf_counter() + options.seconds
    scale = load_scale(options.scale)
    if options.seed not in scale.tuned_on:
        raise SystemExit(f"seed {options.seed} is for reporting; tune on {scale.tuned_on}")
    if options.max_steps:
        scale = scale.smoke(options.max_steps)
    try:
        system, further = prepare(scale, options, end)
    except Over:
        print("out of time in training; the same command goes on")
        return 1
    tries = Tries(options.out / f"c6-{options.seed}.jsonl")
    for found in tries.ended:
        show(found)
    for name in options.only or RECIPES:
        keys = dict(RECIPES[name])
        if options.max_steps:
            keys.pop("steps", None)
        if tries.has(name, keys):
            continue
        if end - time.perf_counter() < tries.longest:
            print(f"out of time before {name!r}; the same command goes on")
            return 1
        tries.begin(name, keys)
        found = {"recipe": name, "keys": keys}
        try:
            found |= attempt(system, further, keys, options)
        except Exception as error:  # whatever it is, the try is listed and the next one follows
            found["failed"] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        tries.end(found)
        show(found)
    return 0


def prepare(scale: Scale, options: argparse.Namespace, end: float) -> tuple[System, Phase]:
    """Return a network that has learnt, trained as far as it is not, and the phase after that."""

    def look(_: object) -> None:
        if time.perf_counter() > end:
            raise Over

    device = find_device(options.device)
    runs = {run.name: run for run in make_runs(scale)}
    common: dict[str, Any] = {"data_dir": options.data_dir, "progress": look}
    common["device"] = str(device)
    print("pretraining", flush=True)
    train(runs["full"].curriculum(options.seed), options.out / "full", **common)
    known = final_card(list_checkpoints(options.out / "full"))
    run = runs["interference"]
    learn = dataclasses.replace(run, phases=run.phases[:1])
    print("learning", flush=True)
    train(learn.curriculum(options.seed, known.path), options.out / "learn", **common)
    card = final_card(list_checkpoints(options.out / "learn"))
    return System(card, run.trained(options.seed), device), run.phases[1]


class Tries:
    """What was tried, line by line in a file: when a recipe was begun, and what it gave."""

    def __init__(self, path: Path) -> None:
        self.path, self._lines = path, list[dict[str, Any]]()
        for line in path.read_text().splitlines() if path.is_file() else []:
            with contextlib.suppress(json.JSONDecodeError):  # cut short by a kill
                self._lines.append(json.loads(line))

    @property
    def ended(self) -> list[dict[str, Any]]:
        """The tries that ended, and those that were stopped: the next line is no end of them."""
        pairs = itertools.zip_longest(self._lines, self._lines[1:], fillvalue={"begun": ""})
        return [each for each, then in pairs if "begun" not in each or "begun" in then]

    @property
    def longest(self) -> float:
        """Seconds that a recipe took, at most."""
        return max((each.get("seconds", 0.0) for each in self._lines), default=0.0)

    def has(self, name: str, keys: dict[str, Any]) -> bool:
        """Return whether a recipe has ended already, with these keys."""
        asked = {"recipe": name, "keys": keys}
        return any("begun" not in each and asked.items() <= each.items() for each in self._lines)

    def begin(self, name: str, keys: dict[str, Any]) -> None:
        """Note that a recipe is begun."""
        begun = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.end({"recipe": name, "keys": keys, "begun": begun})

    def end(self, found: dict[str, Any]) -> None:
        """Note what a recipe gave."""
        self._lines.append(found)
        with self.path.open("a+") as file:
            file.seek(max(0, file.seek(0, 2) - 1))
            cut = file.read(1) not in ("", "\n")  # a line that a kill has cut short stays apart
            file.write("\n" * cut + json.dumps(found) + "\n")


def attempt(
    system: System, further: Phase, keys: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """Return what a recipe does at the one location, and everywhere."""
    card, start = system.card, time.perf_counter()
    phase = dataclasses.replace(
        further, same_categories_as=None, categories=card.categories, **keys
    )
    precision = phase.precision or load_scale(options.scale).network.precision
    found: dict[str, Any] = {}
    network = load_scale(options.scale).network
    before: tuple[float, float] | None = None
    with own_generators(system.device):
        for name, environment in (("one", phase.environment), ("control", "full")):
            curriculum = Curriculum(
                "c6", network, card.canvas, (dataclasses.replace(phase, environment=environment),),
                seed=options.seed,
            )  # fmt: skip
            (resolved,) = resolve(curriculum, data_dir=options.data_dir, past=card.past)
            if before is None:
                system.reset()
                before = system.evaluate(resolved.train, precision)
                found["before"] = before
            found[name] = looks = go_on(system, resolved, precision)
            kept, far = looks[-1][1] >= before[0] - 0.05, looks[-1][2]
            if name == "one" and (not kept or far > before[1] - LOST):
                found["why"] = "nothing is lost" if kept else "what was learnt is lost"
                break
    return found | {"seconds": round(time.perf_counter() - start, 1)}


def show(found: dict[str, Any]) -> None:
    """Print one line."""
    if "before" not in found or "failed" in found:
        said = found.get("failed", f"begun {found.get('begun')} and stopped")
        print(f"{found['recipe']:42} {said}", flush=True)
        return
    ways = []
    for name in ("one", "control"):
        looks = " ".join(f"{far:.2f}" for _, _, far in found.get(name, []))
        last = found[name][-1] if name in found else None
        ways.append(f"{name}: on {last[1]:.2f} far {looks}" if last else f"no {name}")
    on, far = found["before"]
    steps = int(found["one"][-1][0])
    print(
        f"{found['recipe']:42} {steps:5} steps {found['seconds']:5.0f} s; before: on {on:.2f} far "
        f"{far:.2f}; {'; '.join(ways)} {found.get('why', '')}",
        flush=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())

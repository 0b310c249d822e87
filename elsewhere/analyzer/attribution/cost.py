"""What maps cost before they are made: images there and back, and the time that a step takes."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from elsewhere.analyzer.attribution.batches import in_full_batches
from elsewhere.analyzer.attribution.objects import ObjectRun
from elsewhere.analyzer.attribution.targets import SimilarityTarget
from elsewhere.models.forward import computing

SCORED = 1
"""Images beside each map: what a single pass says of its prediction, score and answer."""


@dataclass(frozen=True)
class Cost:
    """What a run of attribution takes, or a part of one.

    Parameters
    ----------
    maps
        Maps that are made: of each object at each location.
    forward, backward
        Images through the network, and back; of windows that are covered, at most.
    seconds
        By a step that was measured, without what several processes share.
    rows
        Images of that step.
    at_most
        Whether the incremental engine or empty windows make it less.
    """

    maps: int
    forward: int
    backward: int
    seconds: float
    rows: int
    at_most: bool = False
    raised: tuple[int, int] | None = None
    """Steps of a map, and those that it may be raised to where it does not sum."""

    def times(self, runs: int) -> Cost:
        """Return the cost of so many runs like this one."""
        return replace(
            self, maps=self.maps * runs, forward=self.forward * runs,
            backward=self.backward * runs, seconds=self.seconds * runs,
        )  # fmt: skip

    def __str__(self) -> str:
        """Return the cost in words."""
        unit, size = next(
            (unit, size)
            for unit, size in (("h", 3600), ("min", 60), ("s", 1))
            if self.seconds >= size or unit == "s"
        )
        about = "at most" if self.at_most else "about"
        back = f" and {self.backward:,} back" if self.backward else ""
        text = (
            f"{self.maps:,} maps: {about} {self.forward:,} images through the network{back}, "
            f"{about} {self.seconds / size:.2g} {unit} by a step of {self.rows} that was measured"
        )
        if self.raised is not None:
            steps, most = self.raised
            text += f"; a map that does not sum takes up to {most} steps instead of {steps}"
        return text


def cost_of(run: ObjectRun, n_maps: int) -> Cost:
    """Return what `n_maps` maps of a run cost, with the steps that were asked for.

    Parameters
    ----------
    run
        The method, bound to network, target and scenes.
    n_maps
        Objects times locations.
    """
    explainer, options = run.explainer, run.explainer.options
    forward = backward = int(options.get("n_steps") or options.get("n_samples") or 1)
    if explainer.method.lattice is not None:
        lattice = explainer.method.lattice(options)
        top, left = run.scenes.corners([run.sweep.reference])[0]
        size = run.sweep.canvas.size
        forward = 1 + len(lattice.windows(top, size)) * len(lattice.windows(left, size))
        if run.plain:  # windows beside the object change nothing
            side = run.sweep.canvas.object_size
            forward = 1 + len(lattice.touching(0, 0, side)) ** 2
        backward = 0
    elif explainer.method.rules is not None and explainer.method.compares:
        forward = backward = 2  # image and baseline side by side
    extras, count = run.settings.extras, run.settings.n_perturbations
    maps_again = count * ("sensitivity" in extras)
    again = maps_again * forward + count * ("infidelity" in extras)
    beside = SCORED + (explainer.method.compares and run.blurred)
    steps, most = int(options.get("n_steps") or 0), int(options.get("most_steps") or 0)
    there, back = _step(run)
    return Cost(
        n_maps,
        n_maps * (forward + again + beside),
        n_maps * backward * (1 + maps_again),
        n_maps
        * ((forward + again + beside) * there + backward * (1 + maps_again) * max(back - there, 0)),
        1 if explainer.method.alone else explainer.rows,
        at_most=explainer.method.lattice is not None,
        raised=(steps, most) if most > steps else None,
    )


def _step(run: ObjectRun) -> tuple[float, float]:
    """Return the seconds that an image takes through the network, and there and back."""
    explainer = run.explainer
    rows = 1 if explainer.method.alone and not in_full_batches(run.scenes.empty) else explainer.rows
    images = run.scenes.empty[:1].expand(rows, -1, -1, -1).clone()
    extra: tuple[torch.Tensor, ...] = ()
    if isinstance(run.target, SimilarityTarget):
        extra = (explainer.parts(images[:1]).expand(rows, -1),)
    taken = [0.0, 0.0]
    with computing(run.sweep.model.device):
        for _ in range(2):  # the first one makes room and chooses kernels
            for place, grads in enumerate((False, True)):
                images = images.detach().requires_grad_(grads)
                start = time.perf_counter()
                with torch.set_grad_enabled(grads):
                    scores = explainer.scorer(images, *extra)
                    if grads and scores.requires_grad:
                        scores[:, 0].sum().backward()
                if images.device.type == "cuda":
                    torch.cuda.synchronize()
                taken[place] = time.perf_counter() - start
    explainer.scorer.zero_grad(set_to_none=True)
    return taken[0] / rows, taken[1] / rows

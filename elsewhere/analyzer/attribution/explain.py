"""Maps of a batch of images, in bounded memory: what every driver of this package calls."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from elsewhere.analyzer.attribution.batches import (
    Batch,
    Method,
    Setting,
    even_rows,
    most_rows,
)
from elsewhere.analyzer.attribution.copies import PlainNetwork
from elsewhere.analyzer.attribution.covering import (
    Coverer,
    choose_coverer,
    cover_images,
    is_out_of_memory,
)
from elsewhere.analyzer.attribution.explained import Explained, Looked
from elsewhere.analyzer.attribution.methods import methods, read_options
from elsewhere.analyzer.attribution.ruled import Ruled
from elsewhere.analyzer.attribution.suitability import (
    check_copy,
    check_sizes,
    check_target,
    find_map_layer,
)
from elsewhere.analyzer.attribution.targets import Scorer, SimilarityTarget, Target, own_scores
from elsewhere.errors import EngineError, InputError, LayerError, NumericsError, reason_of
from elsewhere.logs import get_logger
from elsewhere.measures.maps import plane_of
from elsewhere.measures.vectors import to_numpy, upload
from elsewhere.models import Conduct, Model, list_layers
from elsewhere.models.forward import computing
from elsewhere.recording.engines import EngineChoice
from elsewhere.types import Engine

logger = get_logger(__name__)

TOLERANCE = 0.01
"""By which share relevance may be off its sum, which nothing but rounding changes."""

ROUNDING = 16
"""A map that explains less than so many units of rounding is none."""

UNIT = 2.0**-24
"""By which share of itself a number in single precision is rounded, at most."""

_NO_GRADIENT = ("used in the graph", "does not require grad", "did not obtain any outputs")
"""What torch and Captum say of a target that does not depend on what it is attributed to."""


class Explainer:
    """A method, bound to a copy of a network and to a target.

    Parameters
    ----------
    model
        The network; nothing of it is changed.
    canvas_size, object_size
        Sides, px.
    method
        Its name.
    target
        What is attributed.
    layer
        The layer of a method that needs one.
    options
        The method's own, by name or as ``name=value`` texts.
    max_memory
        Bytes that a forward and a backward pass may take; a batch that does not fit all the same
        is halved.
    seed
        Of methods that draw at random.
    conduct
        How the network has to be run; in batches by default.
    n_images
        How many are explained together, where it is known. A GPU, whose passes may be large, then
        takes passes that few rows only fill up.

    Raises
    ------
    UnknownNameError
        No such method, option or layer.
    InputError
        A network, target, layer or option that the method cannot work with.
    """

    def __init__(
        self,
        model: Model,
        *,
        canvas_size: int,
        object_size: int,
        method: str,
        target: Target,
        layer: str | None = None,
        options: Mapping[str, object] | Sequence[str] = (),
        max_memory: int = 2**31,
        seed: int = 0,
        conduct: Conduct | None = None,
        n_images: int | None = None,
    ) -> None:
        self.method: Method = methods.get(method)
        if model.precision != "float32":
            raise InputError(
                f"attributions are computed in float32, and {model.name} is to be run in "
                f"{model.precision}: they add up small differences of scores, which other "
                "precisions round away; leave the precision out"
            )
        self.name, self.target, self.model = method, target, model
        self.canvas_size, self.object_size, self.seed = canvas_size, object_size, seed
        self._conduct = Conduct() if conduct is None else conduct
        self.options: dict[str, Any] = read_options(method, options, object_size=object_size)
        check_target(self.method, method, target)
        check_sizes(method, self.options, canvas_size, object_size)
        self.layer = find_map_layer(self.method, method, layer, model, canvas_size)
        self.network = PlainNetwork(model, self._conduct)
        self.scorer = Scorer(self.network, model, target, canvas_size).eval()
        check_copy(self.network, model, self._conduct, canvas_size)
        self.max_memory = max_memory
        self.rows = self._all_rows = self._fitting_rows(max_memory, n_images)
        self._followed: dict[tuple[int, ...], Ruled] = {}
        self.counts: Mapping[str, int] = self._count_rules()
        self.choice = EngineChoice("dense", "")
        self._coverer: Coverer | None = None

    def choose(self, engine: Engine, sample: Batch) -> EngineChoice:
        """Choose the engine of a method that covers windows, and return it.

        Parameters
        ----------
        engine
            ``dense`` runs whole images, ``incremental`` the windows that are covered (same values
            up to rounding), ``auto`` the latter where it applies and pays.
        sample
            A typical image.

        Raises
        ------
        InputError
            The incremental engine is asked for by name and does not apply.
        """
        self.choice, self._coverer = EngineChoice("dense", ""), None
        if engine not in (known := ("auto", "incremental", "dense")):
            raise InputError(
                f"the engine {engine!r} takes images through a network; maps need gradients, or "
                f"cover windows of images, by one of {', '.join(known)}"
            )
        if self._conduct.alone:
            if engine == "incremental":
                raise InputError(
                    f"--engine incremental does not apply to {self.model.name}, which is run one "
                    f"image a pass: {self._conduct.reason}; take --engine auto or dense"
                )
            return self.choice
        if self.method.lattice is None:
            if engine == "incremental":
                raise InputError(
                    f"--engine incremental does not apply to {self.name}, which takes whole "
                    "passes; it serves occlusion and feature-ablation; take --engine auto or dense"
                )
            return self.choice
        (scene,) = cover_images(sample.take(slice(0, 1)), self.object_size)
        with computing(self.model.device):
            self.choice, self._coverer = choose_coverer(
                engine,
                self.model,
                self.scorer,
                scene,
                self.method.lattice(self.options),
                self.max_memory,
            )
        return self.choice

    def _fitting_rows(self, max_memory: int, n_images: int | None) -> int:
        if self._conduct.alone:
            return 1
        layers = list_layers(self.model, self.canvas_size)
        # what autograd keeps of a pass, the gradient on its way back, and inputs
        each = 2 * sum(layer.bytes for layer in layers) + 6 * 12 * self.canvas_size**2
        most, max_memory = most_rows(self.model.device, max_memory)
        fitting = int(max(1, min(most, max_memory // max(each, 1))))
        fills = self.method.batches or self.method.lattice is not None
        return fitting if fills or n_images is None else even_rows(n_images, fitting)

    # --- rules ------------------------------------------------------------------------------

    def _follow(self, images: torch.Tensor) -> Ruled:
        """Return the network's operations on images of this shape, with the method's rules."""
        if self.method.rules is None:
            raise InputError(f"{self.name} replaces no derivatives")
        key = tuple(images.shape)
        if key not in self._followed:
            self._followed[key] = Ruled(
                self.scorer.linear_part,
                self.network.network,
                images.detach(),
                self.method.rules(self.options),
            )
        return self._followed[key]

    def _count_rules(self) -> dict[str, int]:
        """Return how often each rule applies; refuse a network that the method has none for."""
        if self.method.rules is None:
            return {}
        rows = 1 if self.method.alone else self.rows
        shape = (rows + rows * self.method.compares, 3, self.canvas_size, self.canvas_size)
        with computing(self.model.device):
            return dict(self._follow(torch.zeros(shape, device=self.model.device)).counts)

    # --- forward ----------------------------------------------------------------------------

    def parts(self, images: torch.Tensor) -> torch.Tensor:
        """Return what is scored of images, (n, unit): activations, or their linear readout."""

        def run(one: Batch) -> tuple[torch.Tensor]:
            with torch.no_grad(), computing(self.model.device):
                return (self.scorer.linear_part(one.images),)

        return self._halving(_bare(images), run, "the network")[0]

    def look(
        self,
        images: torch.Tensor,
        references: torch.Tensor | None = None,
        nothing: torch.Tensor | None = None,
    ) -> Looked:
        """Return all that is told of images beside their maps, by one pass of each.

        `references` (n, unit) are what the similarity compares with, and `nothing` (1, unit) what
        is scored of the empty canvas, as :meth:`parts` gives it.
        """
        digits = None if images.device.type == "mps" else torch.float64

        def run(one: Batch) -> tuple[torch.Tensor, ...]:
            with torch.no_grad(), computing(self.model.device):
                values, given = self.scorer.answer(one.images)
                columns = self.scorer.bend(values, *one.extra)
            outputs = columns if given is None else given
            if given is None and isinstance(self.target, SimilarityTarget):
                outputs = columns[:, :0]
            size, change = (
                torch.linalg.vector_norm(each, dim=1, dtype=digits)
                for each in (values, values - (torch.nan if nothing is None else nothing))
            )
            return columns, outputs, change, size

        return Looked(*self._halving(_bare(images, references), run, "the network"))

    def scores(self, batch: Batch) -> NDArray[np.float64]:
        """Return the target's score for each image, (n,)."""
        return _own(self.look(batch.images, batch.references).columns, batch)

    # --- maps -------------------------------------------------------------------------------

    def maps(self, batch: Batch, *, steps: int = 0, check: bool = True) -> torch.Tensor:
        """Return the method's maps, float32 (n, channel, height, width).

        Parameters
        ----------
        batch
            The images.
        steps
            Of integrated gradients, where it is not the option's number.
        check
            Whether what is not finite is refused, which waits for the device.

        Raises
        ------
        NumericsError
            NaN or infinity.
        InputError
            Not even a single image fits the memory, or the method cannot work with the network.
        """
        return self._maps_and_kept(batch, steps, check)[0]

    def _maps_and_kept(
        self, batch: Batch, steps: int = 0, check: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the maps, and of each what it does not share out of the score."""
        pad = not self.method.alone and not self.method.fills(batch.images)
        options = {**self.options, "n_steps": steps} if steps else self.options
        run = functools.partial(self._attribute, options=options)
        maps, kept = self._halving(batch, run, self.name, pad=pad)
        if check:
            self.expect_finite(bool(torch.isfinite(maps).all()))
        return maps, kept

    def expect_finite(self, finite: bool) -> None:
        """Refuse maps that are not."""
        if not finite:
            raise NumericsError(
                f"{self.name} gives NaN or infinity on {self.model.name}; check its weights and "
                "its input"
            )

    def explain(self, batch: Batch, looked: Looked | None = None) -> Explained:
        """Return maps and scores; a map's sum is checked where it is known.

        `looked` is what :meth:`look` says of the images, where that is at hand.

        Integrated gradients that do not sum within the option ``tolerance`` are made again in
        twice as many steps, and so on up to the option ``most_steps``. What still does not sum is
        returned as it is: see :meth:`completeness`.

        Raises
        ------
        InputError
            No number of steps helps.
        """
        if looked is None:
            looked = self.look(batch.images, batch.references)
        maps, kept = self._maps_and_kept(batch)
        scores, compared = _own(looked.columns, batch), np.full(len(batch), np.nan)
        if self.method.compares and batch.compared is not None:
            compared = _own(batch.compared.expand(len(batch), -1), batch)
        elif self.method.compares:
            compared = self.scores(replace(batch, images=batch.baselines))
        steps = np.full(len(batch), self.options.get("n_steps", 0), np.int64)
        found = Explained(maps, scores, compared, to_numpy(kept), steps)
        if not self.method.complete:
            return found
        off = np.flatnonzero(self.completeness(found)[1] > self.tolerance)
        if len(off) and self._silent(batch.baselines[off[:1]]):
            layer = self.scorer.layer.name if self.scorer.layer else ""
            raise InputError(
                f"a map of {self.name} does not sum to the score's change: the baseline leaves "
                f"{layer!r} silent, and from there a cosine jumps, which no number of steps "
                "follows: take --baseline blurred, or --method occlusion, or allow more "
                "(--option tolerance=...)"
            )
        count, most = self.options.get("n_steps", 0), self.options.get("most_steps", 0)
        while len(off) and count < most:
            count = min(2 * count, most)
            more, _ = self._maps_and_kept(batch.pick(off.tolist()), count)
            found.maps[upload(off, more.device)], found.steps[off] = more, count
            off = np.flatnonzero(self.completeness(found)[1] > self.tolerance)
        return found

    @property
    def tolerance(self) -> float:
        """By which share of the score's change a map's sum may be off; infinite without a sum."""
        if not self.method.complete:
            return float("inf")
        return float(self.options.get("tolerance", TOLERANCE))

    def completeness(self, found: Explained) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return how far each map's sum is off, and that as a share; NaN where there is no sum.

        ``sum of the map - (score - score of the baseline)``, as a share of the scores' difference,
        or of a tenth of the map's absolute mass where that is more: where what speaks for and
        against cancels, the difference is no measure. Relevance has no baseline; there, what
        biases and the stabiliser keep takes the place of its score.
        """
        if not self.method.complete:
            nothing = np.full(len(found.scores), np.nan)
            return nothing, nothing
        return found.completeness(found.baseline_scores if self.method.compares else found.kept)

    def vanishing(
        self, found: Explained, batch: Batch, looked: Looked, empty: torch.Tensor
    ) -> NDArray[np.bool_]:
        """Return which maps are nothing but the score's own rounding, or empty, bool (n,).

        A map reaches as far as the change of the score that it explains: its absolute mass where
        it shares scores out, that of slopes times what the object changes of the empty canvas, of
        covered windows the largest change. That has to be more than a few times the rounding of
        single precision, in units of the largest score of any class.

        A similarity's digits are finer where it is near 1: what rounding turns of an activation
        changes a cosine by that times the sine. And its gradient vanishes with the sine itself.
        """
        maps, digits = found.maps.double().abs(), ROUNDING * UNIT
        if self.method.slopes:
            maps = maps * (batch.images - empty).abs().double()
        covers = self.method.lattice is not None
        summed = maps.amax((1, 2, 3)) if covers else maps.sum((1, 2, 3))
        reach: NDArray[np.float64] = summed.cpu().numpy()
        if not covers and not self.method.slopes and self.layer is not None and self.layer.is_map:
            cells = np.prod(plane_of(self.layer))
            reach = reach * cells / self.canvas_size**2
        if not isinstance(self.target, SimilarityTarget):
            scale = to_numpy(looked.columns.abs().amax(1)).astype(np.float64)
            known = np.maximum(scale, np.nan_to_num(np.abs(found.baseline_scores)))
            return np.asarray(reach <= digits * known)
        sine, far = (
            np.sqrt(np.maximum(1 - np.nan_to_num(cosine, nan=1.0) ** 2, 0))
            for cosine in (found.scores, found.baseline_scores)
        )
        if self.method.lattice is not None:
            return np.asarray(reach <= digits * (sine + np.sqrt(2 * reach)))
        return np.asarray((np.maximum(sine, far) <= digits) | (reach <= 0))

    def unanswered(self, looked: Looked) -> NDArray[np.bool_]:
        """Return of which images the target's activations are the empty canvas's, bool (n,).

        A map of slopes is one of the background there.
        """
        found: NDArray[np.bool_] = to_numpy(looked.change <= ROUNDING * UNIT * looked.size)
        return found

    def _silent(self, baseline: torch.Tensor) -> bool:
        """Return whether the target is a cosine with an activation that the baseline has not."""
        if not isinstance(self.target, SimilarityTarget):
            return False
        return not bool(self.parts(baseline).any())

    def _attribute(
        self, batch: Batch, *, options: Mapping[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        images = batch.images.detach().clone().requires_grad_(True)
        setting = Setting(
            self.scorer,
            self.layer,
            options,
            self.rows,
            self.object_size,
            self.seed,
            self._coverer,
            self.rows / self._all_rows,
            self._follow,
        )
        with warnings.catch_warnings(), computing(self.model.device), torch.enable_grad():
            warnings.simplefilter("ignore")  # Captum tells of hooks that it will remove
            try:
                maps = self.method.run(setting, replace(batch, images=images))
            except (RuntimeError, AssertionError) as error:
                text = " ".join(str(error).split())
                if any(said in text for said in _NO_GRADIENT):
                    where = f"the layer {self.layer.name!r}" if self.layer else "the image"
                    raise LayerError(
                        f"the target {self.target.name} does not depend on {where}: it has no "
                        "gradient there; take an earlier layer or another target, or the method "
                        "occlusion, which needs no gradients"
                    ) from error
                raise
        nothing = torch.full((len(batch),), torch.nan, dtype=torch.float64)
        return maps.detach().float(), torch.stack(setting.kept) if setting.kept else nothing

    def _halving(
        self,
        batch: Batch,
        run: Callable[[Batch], tuple[torch.Tensor, ...]],
        what: str,
        *,
        pad: bool = True,
    ) -> tuple[torch.Tensor, ...]:
        """Run a batch in pieces that fit the memory; halve them, and say so, when they do not."""
        found: list[tuple[torch.Tensor, ...]] = []
        done = 0
        while done < len(batch):
            piece = batch.take(slice(done, done + self.rows))
            try:
                rows = run(piece.padded(self.rows) if pad else piece)
                found.append(tuple(each[: len(piece)] for each in rows))
                done += len(piece)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if self.rows == 1 and self._coverer is not None:
                    raise EngineError(
                        f"{what} by windows does not fit the memory ({reason_of(error)})"
                        + EngineError.REMEDY
                    ) from error
                if self.rows == 1:
                    raise InputError(
                        f"{what} does not fit the memory for a single image of {self.canvas_size} "
                        "px; take a smaller canvas, a cheaper method or a device with more memory"
                    ) from error
                self.rows //= 2
                logger.warning("out of memory: going on with %d images at a time", self.rows)
                if self.model.device.type == "cuda":
                    torch.cuda.empty_cache()
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def _bare(images: torch.Tensor, references: torch.Tensor | None = None) -> Batch:
    """Return images of which nothing is attributed."""
    return Batch(images, images, [(0, 0)] * len(images), [0] * len(images), references)


def _own(columns: torch.Tensor, batch: Batch) -> NDArray[np.float64]:
    """Return of scores (n, class) those of each image's class, (n,)."""
    found: NDArray[np.float64] = to_numpy(own_scores(columns, batch.classes)).astype(np.float64)
    return found

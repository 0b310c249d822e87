"""What a network does with a batch of images, found out by running it, not by what it says it is.

`observe` runs a few images in several company. A network whose images depend on each other, on
chance or on what came before is refused, or run one image a pass and seeded where that is asked
for. The same passes give its *behaviour*: what its layers give for a fixed image and for the empty
canvas, by which it is known again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from elsewhere.errors import ElsewhereError, InputError, reason_of
from elsewhere.measures.behaviour import Behaviour, differing, sketch
from elsewhere.models.model import Model
from elsewhere.models.names import OUTPUT
from elsewhere.models.outputs import output_tensors
from elsewhere.models.proof import TOLERANCE, alike, undisturbed
from elsewhere.models.restoring import Snapshot, chance_state, seeded, untouched
from elsewhere.models.taps import Taps
from elsewhere.protocols import Layer
from elsewhere.types import BATCH_ROWS

CERTAIN = 1e-7
"""The tolerance in double precision, where rounding is far below."""

DOUBTFUL = 1e-3
"""What is taken for more than rounding where a network cannot be run in double precision."""

N_REPEATS = 6
"""How often a network that draws random numbers without a visible effect is run again."""

DRAWS = (
    "the network draws random numbers, which changed nothing in the passes that were looked at, "
    "but may rarely: seed every pass with --chance-seed N to be certain"
)

Values: TypeAlias = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Conduct:
    """How a network has to be run so that an image's values are its own."""

    alone: bool = False  # whether each image is run alone
    seed: int | None = None  # of generators before every pass; None: they are left alone
    keeps: bool = False  # whether passes change what it remembers: see :func:`check_again`
    reason: str = ""  # in a few words; empty for a network that may be run in any batch
    notes: tuple[str, ...] = ()  # doubts that every result of it carries
    behaviour: Behaviour = field(default_factory=dict)
    """What it does with the fixed image, with the empty canvas and with one of the objects."""

    def output_at(self, canvas_size: int) -> Behaviour:
        """Return what it does with its output, under a name that tells the canvas's side."""
        return {
            f"{name} at {canvas_size} px": found
            for name, found in self.behaviour.items()
            if name.startswith(OUTPUT)
        }

    def a_pass(self, module: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Seed the generators for one forward pass, where this network needs it."""
        return contextlib.nullcontext() if self.seed is None else seeded(self.seed, module)


def probe_image(size: int) -> NDArray[np.uint8]:
    """Return the fixed image, (size, size, 3): ramps, discs of several sizes, and noise.

    It depends on nothing but the size.
    """
    rng = np.random.RandomState(2021)
    y, x = np.mgrid[:size, :size] / max(size - 1, 1)
    image = np.stack([255 * y, 255 * x, 255 * (1 - y)], axis=-1)
    for radius in (0.25, 0.15, 0.1, 0.05):
        for centre_y, centre_x in rng.uniform(size=(3, 2)):
            inside = (y - centre_y) ** 2 + (x - centre_x) ** 2 <= radius**2
            image[inside] = rng.uniform(0, 255, size=3)
    noise = rng.uniform(0, 255, size=image.shape)
    return np.where(x[..., None] < 0.5, image, (image + noise) / 2).astype(np.uint8)


def observe(
    model: Model,
    empty: torch.Tensor,
    scenes: torch.Tensor,
    layers: Sequence[Layer],
    *,
    output: bool = False,
    rows: int = BATCH_ROWS,
    gradients: bool = False,
) -> Conduct:
    """Return how a network has to be run, and its behaviour; it is left as it was found.

    Its ``batch_dependent`` and ``chance_seed`` say what is done with one that cannot be run in
    batches.

    Parameters
    ----------
    empty
        The empty canvas as the network takes it, (1, channel, height, width).
    scenes
        Other images, likewise, that are typical of what it will be shown; one or more.
    layers
        The layers of which values are wanted; with `output`, the network's own output as well.
    rows
        How many images a pass will have: some networks mix groups of 4 or 8 images, where as many
        are there.
    gradients
        Whether gradients are going to be taken, so that the network has to do the same with them.

    Raises
    ------
    InputError
        Images depend on each other, on chance, or on what was shown before.

    Notes
    -----
    A fixed image and the empty canvas are run among others, in a batch of `rows` of still others,
    again, and alone, and two of the scenes are run alone: 29 images if `rows` is 8. What differs by
    more than rounding is looked at once more in double precision, so that a network that only
    amplifies rounding is not blamed. A network that draws random numbers is repeated more often,
    for what is drawn may matter rarely.
    """
    pixels = torch.from_numpy(probe_image(empty.shape[-1])[None]).to(empty.device)
    fixed = model.transform.apply(pixels).to(empty.dtype)
    others = [scenes[[-1 - row % len(scenes)]] for row in range(max(rows, 3))]
    others[len(others) // 2], others[-1] = fixed, empty
    images = _Images(fixed, empty, torch.cat([fixed, empty, scenes[:1]]), torch.cat(others))
    with (
        _complaining(model),
        untouched(model.module) as snapshot,
        seeded(None, model.module),
        torch.no_grad() if gradients else torch.inference_mode(),
    ):
        model.module.eval()
        return _Observation(model, layers, output, images, snapshot, gradients).judge()


@contextlib.contextmanager
def _complaining(model: Model) -> Iterator[None]:
    """Say in one line what a network raises of some images, though it took others."""
    try:
        yield
    except ElsewhereError:
        raise
    except Exception as error:  # any network, any complaint
        raise InputError(
            f"{model.name} fails on some of the images that it is to be shown "
            f"({reason_of(error)}), though it takes the empty canvas; leave out the object, or the "
            "check that refuses it"
        ) from error


def check_again(
    model: Model, conduct: Conduct, empty: torch.Tensor, layers: Sequence[Layer]
) -> None:
    """Refuse a network that keeps a state if it has come to do something else; after a sweep.

    The arguments are those of :func:`observe`, and what it returned.

    Raises
    ------
    InputError
        What it gives for the fixed image or the empty canvas has changed.
    """
    if not conduct.keeps:
        return
    pixels = torch.from_numpy(probe_image(empty.shape[-1])[None]).to(empty.device)
    images = (model.transform.apply(pixels).to(empty.dtype), empty)
    with untouched(model.module) as snapshot, seeded(None, model.module), torch.inference_mode():
        model.module.eval()
        observation = _Observation(model, layers, False, _Images(*images, *images), snapshot)
        observation.compare(conduct)


@dataclass(frozen=True)
class _Images:
    fixed: torch.Tensor
    empty: torch.Tensor
    among: torch.Tensor
    others: torch.Tensor

    @property
    def own(self) -> list[int]:
        """Where the fixed image and the empty canvas stand among the others."""
        return [len(self.others) // 2, len(self.others) - 1]

    def with_gradients(self) -> torch.Tensor:
        """Return the first images such that gradients follow them; it must not be a leaf, on which
        networks cannot work in place."""
        return self.among.detach().clone().requires_grad_().clone()

    def double(self) -> _Images:
        return _Images(*(part.double() for part in vars(self).values()))


class _Observation:
    """The passes of one network, and what follows from them."""

    def __init__(
        self,
        model: Model,
        layers: Sequence[Layer],
        output: bool,
        images: _Images,
        snapshot: Snapshot,
        gradients: bool = False,
    ) -> None:
        self._model, self._module, self._snapshot = model, model.module, snapshot
        self._gradients = gradients
        self._images = images
        self._output = output or any(layer.module == "" for layer in layers)
        self._layers: dict[str, list[Layer]] = {}
        for layer in layers:
            self._layers.setdefault(layer.module, []).append(layer)

    def judge(self) -> Conduct:
        """Return what is to be done with the network; refuse what was not asked for."""
        before, images = chance_state(self._module), self._images
        try:
            first = self._values(images.among, [0, 1, 2])
        except Exception as error:  # any network, any complaint: it takes single images
            line = reason_of(error)
            for image in images.among:
                self._values(image[None], [0])  # or else it takes not even these
            return self._alone(f"it cannot run several images in a pass ({line})")
        company = self._differing(images.others, images.own, first)
        again = self._differing(images.among, [0, 1], first)
        if self._gradients:
            with torch.enable_grad():
                again += self._differing(images.with_gradients(), [0, 1], first)
        if draws := chance_state(self._module) != before:
            before = chance_state(self._module)
            for _ in range(N_REPEATS):
                again = again or self._differing(images.among, [0, 1], first)
            draws = chance_state(self._module) != before  # or else another thread had drawn
        if again:
            return self._changing(again[0])
        company += self._alone_differing(images, first)
        if company and not self._is_rounding():
            return self._alone(f"{_told(company[0])} depends on the other images of its batch")
        if self._snapshot.changed():  # once more, from the start, after other images
            self._start_again()
            found = self._differing(images.others, images.own, first, tolerance=DOUBTFUL)
            if found:
                raise self._refusal(found[0])
        if draws and self._model.chance_seed is not None:
            return self._alone("it draws some", seed=self._model.chance_seed)
        notes = [DRAWS] if draws and not self._output_changes(images.among, first) else []
        if self._model.batch_dependent == "one-at-a-time":
            return self._alone("", asked=True, notes=notes)
        return self._conduct(_sketches(first), notes)

    def _conduct(self, behaviour: Behaviour, notes: Sequence[str] = (), **how: Any) -> Conduct:
        """Return how to run it, with a doubt if passes change what it remembers."""
        changed = ", ".join(self._snapshot.changed()[:3])
        if changed:
            notes = [
                *notes,
                f"the network keeps a state that its passes change ({changed}): values may depend "
                "on what was shown before",
            ]
        return Conduct(keeps=bool(changed), notes=tuple(notes), behaviour=behaviour, **how)

    def compare(self, conduct: Conduct) -> None:
        """Refuse a network that does not do any more what it did."""
        found = [
            self._values(image, [0], seed=conduct.seed)
            for image in (self._images.fixed, self._images.empty)
        ]
        values = {n: torch.cat([each[n] for each in found]) for n in found[0] if n in found[1]}
        names = [
            name
            for name in differing(conduct.behaviour, _sketches(values))
            if self._output or not name.startswith(OUTPUT)
        ]
        if names:
            raise InputError(
                f"{self._model.name} has changed while it ran: {_told(names[0])} comes out "
                "otherwise than at first for the same image, as it keeps a state between passes, "
                "so no value of it can be repeated; keep it from changing in evaluation mode"
            )

    # --- what is wrong

    def _changing(self, name: str) -> Conduct:
        """Tell chance from a state that every pass changes; refuse the latter."""
        images, model = self._images, self._model
        self._start_again()
        first = self._values(images.fixed, [0], seed=0)
        self._values(images.empty, [0], seed=0)
        if self._differing(images.fixed, [0], first, seed=0):
            raise self._refusal(name)
        if model.chance_seed is None:
            raise InputError(
                f"{model.name} draws random numbers in evaluation mode: {_told(name)} comes out "
                "otherwise when the same images are shown again; leave chance out (such as "
                "F.dropout without training=self.training), or seed every pass with --chance-seed N"
            )
        return self._alone(f"{_told(name)} depends on random numbers", seed=model.chance_seed)

    def _start_again(self) -> None:
        self._snapshot.restore()
        self._module.eval()

    def _refusal(self, name: str) -> InputError:
        kept = ", ".join(self._snapshot.changed()[:3])
        state = f"it keeps a state, {kept}" if kept else "although all generators were seeded"
        return InputError(
            f"{self._model.name} changes from pass to pass: {_told(name)} comes out otherwise when "
            f"the same image is shown again ({state}), so no value of it can be repeated; keep it "
            "from changing in evaluation mode"
        )

    def _alone(
        self,
        reason: str,
        *,
        seed: int | None = None,
        asked: bool = False,
        notes: Sequence[str] = (),
    ) -> Conduct:
        """Return that each image is run alone, if that is asked for and makes it repeatable."""
        model, images = self._model, self._images
        asked = asked or model.batch_dependent == "one-at-a-time" or seed is not None
        if not asked:
            raise InputError(
                f"{model.name} treats its images together: {reason}, so that an object's values "
                "are not its own; run one image a pass with --batch-dependent one-at-a-time, or "
                "put the network's normalisation into evaluation mode"
            )
        self._start_again()
        known = (images.fixed, images.empty, images.among[2:])
        first = [self._values(image, [0], seed=seed) for image in known]
        for image, expected in zip(known, first, strict=True):
            if found := self._differing(image, [0], expected, seed=seed):
                raise self._refusal(found[0])
        if self._snapshot.changed():
            self._start_again()
            for image, expected in reversed(list(zip(known, first, strict=True))):
                if found := self._differing(image, [0], expected, seed=seed, tolerance=DOUBTFUL):
                    raise self._refusal(found[0])
        common = set.intersection(*map(set, first))
        values = {n: torch.cat([each[n] for each in first]) for n in first[0] if n in common}
        notes = list(notes)
        if seed is not None:
            notes.append(
                f"the network draws random numbers ({reason}): every pass was seeded with {seed}, "
                "one image a pass; another seed gives other values"
            )
        elif reason:
            notes.append(
                f"the network treats its images together ({reason}): each image was run alone"
            )
        return self._conduct(_sketches(values), notes, alone=True, seed=seed, reason=reason)

    def _is_rounding(self) -> bool:
        """Return whether what differs between batches vanishes in double precision."""
        module = self._module
        try:
            with (
                torch.inference_mode(False),
                torch.no_grad(),
                undisturbed(module, double=True),
            ):
                return not self._apart(self._images.double(), CERTAIN)
        except Exception:  # a network that does not take doubles
            return not self._apart(self._images, DOUBTFUL)

    def _apart(self, images: _Images, tolerance: float) -> list[str]:
        """Return what an image among others, or alone, gives otherwise than among still others."""
        first = self._values(images.among, [0, 1])
        return [
            *self._differing(images.others, images.own, first, tolerance=tolerance),
            *self._alone_differing(images, first, tolerance),
        ]

    def _alone_differing(
        self, images: _Images, first: Values, tolerance: float = TOLERANCE
    ) -> list[str]:
        """Return what an image gives otherwise when it is alone.

        The fixed image may have the largest values of any batch, and decide alone what depends on
        the largest; the empty canvas, and what is shown, do not.
        """
        found = [
            name
            for row, image in enumerate((images.fixed, images.empty))
            for name in self._differing(
                image, [0], {n: v[row : row + 1] for n, v in first.items()}, tolerance=tolerance
            )
        ]
        for batch, row in ((images.among, 2), (images.others, 0)):  # what is shown, alone
            expected = self._values(batch, [row])
            found += self._differing(batch[[row]], [0], expected, tolerance=tolerance)
        return found

    # --- passes

    def _output_changes(self, images: torch.Tensor, expected: Values) -> bool:
        """Return whether the output comes out otherwise, also where it is not wanted."""
        found = self._values(images, [0, 1])
        return any(
            not alike(value, expected[name][:2])
            for name, value in found.items()
            if name.startswith(OUTPUT) and name in expected
        )

    def _values(
        self,
        images: torch.Tensor,
        rows: Sequence[int],
        *,
        seed: int | None = None,
    ) -> Values:
        """Return some rows of everything that is watched, of a pass."""
        found: Values = {}

        def take(name: str, tensor: torch.Tensor) -> None:
            found[name] = tensor[list(rows)].clone()

        self._run(images, take, seed)
        return found

    def _differing(
        self,
        images: torch.Tensor,
        rows: Sequence[int],
        expected: Values,
        *,
        seed: int | None = None,
        tolerance: float = TOLERANCE,
    ) -> list[str]:
        """Return the names of what is wanted and comes out otherwise in another pass."""
        found: list[str] = []

        def take(name: str, tensor: torch.Tensor) -> None:
            wanted = self._output or not name.startswith(OUTPUT)
            if wanted and name in expected:
                shown = expected[name][: len(rows)]
                same = alike(tensor[list(rows)], shown, tolerance=tolerance)
                found.extend([] if same else [name])

        self._run(images, take, seed)
        return found

    def _run(
        self,
        images: torch.Tensor,
        take: Callable[[str, torch.Tensor], None],
        seed: int | None,
    ) -> None:
        def give(name: str, tensor: torch.Tensor) -> None:
            if tensor.ndim and len(tensor) == len(images) and tensor.is_floating_point():
                take(name, tensor.detach())

        def listen(module: str, call: int, _: object, output: object) -> None:
            tensors = output_tensors(output)
            for layer in self._layers[module]:
                if layer.call == call and layer.output in tensors:
                    give(layer.name, tensors[layer.output])

        chance = contextlib.nullcontext() if seed is None else seeded(seed, self._module)
        with Taps(self._module, self._layers, listen), chance:
            result = self._module(images.clone())  # it may work on them in place
        for key, tensor in output_tensors(result).items():
            give(OUTPUT if key is None else f"{OUTPUT}[{key}]", tensor)


def _told(name: str) -> str:
    return "its output" if name.startswith(OUTPUT) else f"layer {name!r}"


def _sketches(values: Values) -> Behaviour:
    return {
        name: [sketch(row.double().numpy()) for row in tensor.cpu()]
        for name, tensor in values.items()
    }


__all__ = ["OUTPUT", "Conduct", "check_again", "observe", "probe_image"]

"""Training a head alone: what frozen layers give it is computed once for each image.

Where nothing but the head is trained, and every exemplar is shown as it is at a place of its own,
the head's input is the same each time. A :class:`HeadTable` holds it for all exemplars, and steps
take their batches from there; a :class:`FrozenTrunk` keeps it for the test that accompanies
training. Both are used only where they give what the whole network gives.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import nn

from elsewhere.errors import ElsewhereError
from elsewhere.logs import get_logger
from elsewhere.models import Model
from elsewhere.models.forward import Paster
from elsewhere.models.heads import find_head
from elsewhere.models.outputs import output_tensors
from elsewhere.models.proof import find_difference
from elsewhere.stimuli import Canvas
from elsewhere.training.batches import Presentations
from elsewhere.training.windows import Forward, whole_forward

logger = get_logger(__name__)

TABLE = "a table of what the frozen layers give the head, computed once for each exemplar"
LARGEST = 2**30
"""Bytes of a table, at most."""


class FrozenTrunk:
    """A network whose head alone is trained, cut before the head.

    A dropout whose output the head takes is on the head's side of the cut.
    """

    def __init__(self, network: nn.Module, head: nn.Linear) -> None:
        self._network, self._head = network, head
        self._top: tuple[nn.Module, ...] = (head,)
        self._held: dict[Hashable, torch.Tensor] = {}

    @torch.no_grad()
    def inputs(self, run: Callable[[], Any]) -> torch.Tensor:
        """Return what the head's side takes in a pass of the network, which `run` makes.

        Raises
        ------
        ElsewhereError
            The head ran more than once, or its output is not what the network gives.
        """
        dropped: list[tuple[nn.Module, torch.Tensor, torch.Tensor]] = []
        taken: list[tuple[torch.Tensor, torch.Tensor]] = []
        drops = [p for p in self._network.modules() if isinstance(p, nn.modules.dropout._DropoutNd)]
        handles = [
            *(p.register_forward_hook(lambda *given: dropped.append(_seen(*given))) for p in drops),
            self._head.register_forward_hook(lambda *given: taken.append(_seen(*given)[1:])),
        ]
        try:
            output = run()
        finally:
            for handle in handles:
                handle.remove()
        given = list(output_tensors(output).values())
        if len(taken) != 1 or len(given) != 1 or given[0].data_ptr() != taken[0][1].data_ptr():
            raise ElsewhereError("the head's output is not what the network gives")
        found, self._top = taken[0][0], (self._head,)
        if dropped and dropped[-1][2] is found:
            self._top = (dropped[-1][0], self._head)
            found = dropped[-1][1]
        return found.clone()

    def again(self, key: Hashable, run: Callable[[], Any]) -> torch.Tensor:
        """Return what the network gives in a pass that `run` makes, or has made under this key."""
        if key not in self._held:
            self._held[key] = self.inputs(run)
        return self.outputs(self._held[key])

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return what the network gives, from what its head's side takes."""
        for part in self._top:
            inputs = part(inputs)
        return inputs


def _seen(part: nn.Module, given: Any, output: Any) -> tuple[nn.Module, Any, Any]:
    return part, given[0], output


class HeadTable:
    """What the head takes of each exemplar of a phase, (exemplar, ...), at its one place."""

    def __init__(self, trunk: FrozenTrunk, inputs: torch.Tensor) -> None:
        self.trunk, self.inputs = trunk, inputs

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the network's output for exemplars, by their numbers."""
        return self.trunk.outputs(self.inputs[rows])


def make_table(
    model: Model,
    presentations: Presentations,
    forward: Forward,
    paster: Paster[Canvas],
    *,
    most: int,
) -> HeadTable | None:
    """Return the table of a phase; None where it would save nothing or not do.

    It has proven itself: outputs and gradients of the head are those of the whole network. Under
    autocast there is none, as a comparison in half precision tells too little.

    Parameters
    ----------
    model
        The network in the mode in which it is trained.
    presentations
        What the phase shows.
    forward
        The way in which the network would be run otherwise.
    paster
        Of the phase's batches.
    most
        How many presentations the phase has; no table is made for more exemplars.
    """
    network, places = model.module, presentations.fixed_places()
    trained = {id(weights) for weights in network.parameters() if weights.requires_grad}
    half = torch.is_autocast_enabled(paster.device.type)
    if len(trained) > 2 or half or places is None or len(places) > most:
        return None
    head = find_head(model)[1]
    if not trained <= {id(weights) for weights in head.parameters()}:
        return None
    patches, batch = presentations.patches, paster.rows
    trunk = FrozenTrunk(network, head)
    made: list[torch.Tensor] = []
    try:
        for start in range(0, len(places), batch):
            part = slice(start, start + batch)
            shown, at = patches[part], places[part]
            made.append(trunk.inputs(lambda s=shown, p=at: forward(s, p)))  # type: ignore[misc]
            if made[0].nbytes // len(made[0]) * len(places) > LARGEST:
                return None
    except ElsewhereError as error:
        logger.info("no table of the frozen layers: %s", error)
        return None
    table = HeadTable(trunk, torch.cat([rows[: len(places)] for rows in made])[: len(places)])
    # other rows side by side than in the table: images that depend on each other show it
    chosen = torch.linspace(0, len(places) - 1, min(batch, len(places)), device=places.device)
    rows = chosen.round().long().flip(0)
    whole = whole_forward(network, paster)
    reason = find_difference(
        network,
        lambda: whole(patches[rows], places[rows]),
        lambda: table.logits(rows),
        parameters=True,
    )
    if reason:
        logger.info("no table of the frozen layers: %s", reason)
    return None if reason else table

"""The measures of a run's checkpoints as one result: :func:`join_checkpoints`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray

from elsewhere.analyzer.checkpoints import notes_of_checkpoints
from elsewhere.analyzer.factors import apart
from elsewhere.analyzer.track_summary import notes_of_undefined
from elsewhere.measures.tables import LEFT_OUT
from elsewhere.measures.variables import described
from elsewhere.stimuli import Canvas
from elsewhere.training import Card

_SHOWN = (
    "weights",  # of a single checkpoint
    "weights_sha256",
    "model_arguments",
    "batch_norm",
    "noise",
    "background",
    "mean",
    "std",
    "gain",
    "object_set",
    "object_source",
    "object_digest",
    "channels",
    "numerics",
    "n_objects",
    "n_categories",
)
"""What the last checkpoint says of what all were shown, and of itself."""


def join_checkpoints(
    found: Sequence[xarray.Dataset], cards: Sequence[Card], asked: Mapping[str, Any]
) -> xarray.Dataset:
    """Return the measures of all checkpoints as one result, with what was `asked` in `attrs`."""
    without, factors = apart(found)
    joined = xarray.concat(_alike(without), dim="checkpoint", join="exact", combine_attrs="drop")
    if factors is not None:
        joined = joined.merge(factors, join="left", compat="no_conflicts")
    joined = joined.assign_coords(
        phase=("checkpoint", [card.phase for card in cards]),
        step=("checkpoint", [card.step for card in cards]),
        learning_rate=("checkpoint", [card.learning_rate for card in cards]),
        n_classes=("checkpoint", [len(card.categories) for card in cards]),
        kept=found[-1]["kept"],  # which says which layers are beside the main branch
    )
    last = cards[-1]
    canvas: Canvas = last.canvas
    joined.attrs = {
        "kind": "track",
        "curriculum": last.curriculum,
        "fingerprint": last.fingerprint,
        "seed": last.seed,
        "model": last.model,
        "canvas": canvas.size,
        "object_size": canvas.object_size,
        "n_classes": len(last.categories),
        "sampled": found[-1].attrs["sampled"],
        "checkpoint_sha256": [card.sha256 for card in cards],
        "tested_digests": ["/".join(each.attrs.get("tested_digest", [])) for each in found],
        "criterion_step": {
            card.phase: card.criterion_step for card in cards if card.criterion_step is not None
        },
        **asked,
        **{
            key: value
            for key, value in found[-1].attrs.items()
            if key in _SHOWN[2 * (len(cards) > 1) :] or key.startswith("reference_")
        },
        "notes": [*notes_of_checkpoints(found, cards), *notes_of_undefined(found, cards)],
    }
    return described(joined)


def _alike(found: Sequence[xarray.Dataset]) -> list[xarray.Dataset]:
    """Return results of which each has as many exemplars and classes: NaN, or -1, is none.

    Each leaves out the same objects, or categories, in turn: NaN for those to which a checkpoint
    does not respond, as one that has collapsed.
    """
    units = list(dict.fromkeys(unit for each in found for unit in each[LEFT_OUT].values.tolist()))
    left = [each.reindex({LEFT_OUT: units}) for each in found]
    for dim in ("tested", "class"):
        most = max(each.sizes.get(dim, 0) for each in left)
        left = [each.map(_padded, keep_attrs=True, dim=dim, size=most) for each in left]
    return left


def _padded(values: xarray.DataArray, dim: str, size: int) -> xarray.DataArray:
    if dim not in values.dims:
        return values
    missing = np.nan if values.dtype.kind == "f" else -1
    return values.pad({dim: (0, size - values.sizes[dim])}, constant_values=missing)

"""Bringing small pictures to the size of an object's box."""

from __future__ import annotations

import numpy as np
from PIL import Image

from elsewhere.stimuli.arrays import ByteArray


def resize(masks: ByteArray, size: int) -> ByteArray:
    """Return single-channel pictures uint8 (n, h, w) as (n, size, size), bicubic."""
    return np.stack(
        [
            np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.BICUBIC))
            for mask in masks
        ]
    )


def resize_cutouts(grey: ByteArray, masks: ByteArray, size: int) -> tuple[ByteArray, ByteArray]:
    """Return cut-outs uint8 (n, h, w) and their alpha, resized without the ground bleeding in.

    Grey levels are weighted by alpha, resized, and divided by the resized alpha, so that a rim
    is no darker than the object it belongs to.
    """
    weighted = resize(((2 * grey.astype(np.uint32) * masks + 255) // 510).astype(np.uint8), size)
    alpha = resize(masks, size)
    level = 255.0 * weighted / np.maximum(alpha, 1)
    return np.floor(np.clip(level, 0, 255) + 0.5).astype(np.uint8), alpha


def as_color(grey: ByteArray) -> ByteArray:
    """Return grey levels (n, h, w) as colours (n, h, w, 3)."""
    return np.repeat(grey[..., None], 3, axis=3)

"""Arrays of pixels."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.floating]
ByteArray: TypeAlias = NDArray[np.uint8]

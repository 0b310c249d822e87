"""The object set ``digits``: handwritten digits of 8 x 8 px that come with scikit-learn."""

from __future__ import annotations

import numpy as np
import sklearn
from sklearn.datasets import load_digits

from elsewhere.stimuli.objects import ObjectRequest, ObjectSet
from elsewhere.stimuli.sampling import sample_strokes


def build_digits(request: ObjectRequest) -> ObjectSet:
    """Return white handwritten digits; alpha is the ink. The set has one part: `split` is unused.

    Raises
    ------
    ObjectSetError
        More categories or exemplars than there are.
    """
    data = load_digits()
    ink = np.floor(np.asarray(data.images) * (255 / 16) + 0.5).astype(np.uint8)
    source = {"scikit-learn": str(sklearn.__version__), "seed": str(request.seed)}
    labels = np.asarray(data.target, np.int64)
    return sample_strokes("digits", ink, labels, tuple("0123456789"), request, source)

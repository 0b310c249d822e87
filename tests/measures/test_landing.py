"""What a device computes comes to the host while it goes on."""

import numpy as np
import pytest
import torch

from elsewhere.measures import landing
from elsewhere.measures.landing import Landing, Rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16])
def test_rows_come_in_order_and_as_they_were(late, monkeypatch, dtype):
    monkeypatch.setattr(landing, "PIECE_BYTES", 100)
    found, sent = [], []
    way, rows = Landing(), torch.empty(7, 3, 2, dtype=dtype)
    for number in range(6):
        rows.copy_(torch.arange(42).view(7, 3, 2) + 100 * number)
        view = rows.permute(0, 2, 1) if number == 1 else rows
        sent.append(view.clone().numpy())
        rows_of = Rows("grid", str(number), np.arange(7), np.arange(7))
        way.bring(rows_of, view, lambda part, values: found.append((part, values.copy())))
        rows.zero_()  # it is used again at once
    assert late.count("start") - late.count("wait") == landing.PIECES
    way.drain()
    for number, values in enumerate(sent):
        each = [(part, piece) for part, piece in found if part.layer == str(number)]
        assert np.concatenate([part.objects for part, _ in each]).tolist() == list(range(7))
        np.testing.assert_array_equal(np.concatenate([piece for _, piece in each]), values)

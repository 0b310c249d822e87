"""Networks of unusual forms: each works, or one line says what it wants instead."""

import numpy as np
import pytest
import torch
from torch import nn

from elsewhere.errors import InputError
from elsewhere.models import list_layers, load_model
from elsewhere.models.outputs import output_tensors

NETWORKS = """
import torch
from torch import nn
def net(): return nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
def meta(): return net().to("meta")
def partly():
    found = net(); found.register_buffer("scale", torch.zeros(2, device="meta")); return found
def exported(): return torch.export.export(net().eval(), (torch.zeros(1, 3, 8, 8),))
def unlifted(): return exported().module()
"""


class Taking(nn.Module):
    """A convolution whose forward takes what the test says."""

    def __init__(self):
        super().__init__()
        self.conv, self.embed = nn.Conv2d(3, 2, 3), nn.Embedding(4, 2)


class Two(Taking):
    def forward(self, images, state):
        return self.conv(images) + state


class Keyword(Taking):
    def forward(self, images, *, mask):
        return self.conv(images) * mask


class Indices(Taking):
    def forward(self, tokens):
        return self.embed(tokens)


class Other(Taking):
    def forward(self, batch):
        return self.conv(batch.image)


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (Two, "its forward takes images, state, and is given one tensor"),
        (Keyword, "its forward takes images, mask, and is given one tensor"),
        (Indices, "it wants whole numbers, such as indices of an embedding"),
        (Other, "px fail as well, so that it may not be the size"),
    ],
)
def test_what_forward_wants_is_named_and_not_the_canvas(wrap, form, says):
    with pytest.raises(InputError, match=says) as error:
        list_layers(wrap(form()))
    assert "try another --canvas" not in str(error.value)
    assert "wrap it in a factory" in str(error.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("meta", r"device 'meta', .* \(2, first 0.weight\)"),
        ("partly", r"device 'meta', .* \(1, first scale\)"),
        ("exported", "before torch.export"),
        ("unlifted", "before torch.export"),
    ],
)
def test_what_holds_no_weights_or_cannot_be_evaluated_is_refused(tmp_path, monkeypatch, name, says):
    (tmp_path / "formnets.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=says):
        load_model(f"formnets:{name}")


def test_sparse_outputs_are_made_dense():
    values = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    for sparse in (values.to_sparse(), values.to_sparse_csr()):
        (found,) = output_tensors((sparse, None)).values()
        assert np.array_equal(found.numpy(), values.numpy())
    assert output_tensors(torch.nested.nested_tensor([values])) == {}

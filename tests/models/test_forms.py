"""Networks of unusual forms: each works, or one line says what it wants instead."""

import numpy as np
import pytest
import torch
from torch import nn

from elsewhere.analyzer import similarity
from elsewhere.errors import InputError
from elsewhere.models import list_layers, load_model
from elsewhere.models.outputs import output_tensors
from elsewhere.recording import Sweep
from elsewhere.stimuli import Canvas, Grid

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


class Defaults(nn.Module):
    """Takes arguments beside the images, which keep their defaults."""

    def __init__(self, used):
        super().__init__()
        self.conv, self.head, self.used = nn.Conv2d(3, 4, 3, stride=2), nn.Linear(4, 6), used

    def forward(self, images, mask=None, scale=2.0, names=("a",)):
        found = self.conv(images)
        if self.used:
            found = found * scale
        return self.head(found.relu().mean((2, 3)))


@pytest.mark.parametrize("used", [False, True])
def test_arguments_that_keep_their_defaults_are_followed(wrap, used, make_objects):
    """The windows' engine looked for values of what checks them: a traceback on small canvases."""
    torch.manual_seed(0)
    network = Defaults(used).eval()
    canvas = Canvas(24, 7, background=60)
    found = {
        engine: similarity(
            Sweep(
                wrap(network),
                make_objects(n=3, size=7),
                canvas=canvas,
                grid=Grid.parse("2x3", canvas),
                layers="conv",
                engine=engine,
            ),
            metric="evoked",
        )
        for engine in ("dense", "incremental")
    }
    np.testing.assert_allclose(
        found["incremental"]["evoked_each"], found["dense"]["evoked_each"], atol=1e-5
    )


def test_a_quantised_network_is_loaded(monkeypatch, tmp_path):
    """Its state holds types and packed weights beside tensors."""
    (tmp_path / "packed.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def net():\n"
        "    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4), nn.ReLU())\n"
        "    return torch.ao.quantization.quantize_dynamic(network, {nn.Linear})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    names = [layer.name for layer in list_layers(load_model("packed:net"), 8, containers=True)]
    assert {"0", "1", "2"} <= set(names)

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from elsewhere.models import list_layers, load_model
from elsewhere.models.fields import FieldMode


def geometry(name, canvas_size, **arguments):
    layers = list_layers(load_model(name, model_args=arguments), canvas_size)
    return {layer.name: (layer.stride, layer.offset, layer.receptive_field) for layer in layers}


def test_known_receptive_fields():
    vgg = geometry("vgg16-slim", 64, width=0.02)
    assert vgg["conv1_1"] == (1, 0.0, 3)
    assert vgg["pool1"] == (2, 0.5, 6)
    assert vgg["conv5_3"] == vgg["relu5_3"] == (16, 7.5, 196)
    assert vgg["pool5"] == vgg["avgpool"] == (32, 15.5, 212)
    assert vgg["fc6"] == vgg["logits"] == (None, None, None)
    alexnet = geometry("alexnet", 64, num_classes=2)
    assert alexnet["conv1"] == (4, 3.0, 11)
    assert alexnet["pool5"][::2] == (32, 195)
    assert alexnet["avgpool"] == (None, None, None)  # 1 x 1 cells spread to 6 x 6
    resnet = geometry("resnet18", 64, num_classes=2)
    assert resnet["conv1"] == (2, 0.0, 7)
    assert resnet["layer4.1.relu:1"] == (32, 0.0, 435)
    assert resnet["avgpool"] == (None, None, None)


def test_branches_shuffles_and_gates():
    googlenet = geometry("googlenet", 64, num_classes=2, transform_input=True)
    assert googlenet["conv1.conv"] == (2, 0.0, 7)
    assert googlenet["inception5b.branch4.1.conv"][0] == 32
    shuffle = geometry("shufflenet_v2_x0_5", 64, num_classes=2)
    assert shuffle["conv5.2"][0] == 32
    gated = geometry("mobilenet_v3_small", 64, num_classes=2)
    assert gated["features.0.0"] == (2, 0.0, 3)
    # Squeeze and excitation looks at the whole canvas: no cell has a field any more.
    assert gated["features.12.0"] == (None, None, None)


blocks = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["conv", "avg", "max", "residual", "branches", "pad"]),
        "kernel": st.integers(1, 4),
        "stride": st.integers(1, 3),
        "padding": st.integers(0, 2),
        "dilation": st.integers(1, 2),
    }
)


class Block(nn.Module):
    """One random block, positive throughout so that no path cancels another."""

    def __init__(self, kind, kernel, stride, padding, dilation):
        super().__init__()
        self.kind, self.stride = kind, stride
        self.kernel, self.padding, self.dilation = kernel, min(padding, kernel // 2), dilation
        self.weight = torch.ones(2, 2, kernel, kernel)

    def convolve(self, values, kernel=None, padding=None):
        weight = torch.ones(2, values.shape[1], *[kernel or self.kernel] * 2)
        padding = self.padding if padding is None else padding
        dilation = self.dilation if kernel is None else 1
        return functional.conv2d(
            values, weight, stride=self.stride, padding=padding, dilation=dilation
        )

    def forward(self, values):
        if self.kind == "conv":
            return self.convolve(values).relu_()
        if self.kind == "avg":
            return functional.avg_pool2d(values, self.kernel, self.stride, self.padding)
        if self.kind == "max":
            return self.everywhere(values)
        if self.kind == "residual":
            return functional.relu(self.convolve(values, 3, 1) + self.convolve(values, 1, 0))
        if self.kind == "pad":
            return functional.pad(values, (self.padding, 1, self.dilation - 1, 0))
        return torch.cat([self.convolve(values, 3, 1), self.convolve(values, 5, 2)], dim=1)

    def everywhere(self, values):
        return functional.max_pool2d(
            values, self.kernel, self.stride, self.padding, ceil_mode=self.dilation == 2
        )


def touched(module, side, cell):
    """Pixels that change a cell of the output, by changing one row and one column at a time."""
    base = torch.zeros(1, 1, side, side)
    with torch.no_grad():
        before = module(base)
        probes = torch.zeros(2 * side, 1, side, side)
        for place in range(side):
            probes[place, 0, place, :] = 1
            probes[side + place, 0, :, place] = 1
        after = torch.cat([module(probe[None]) for probe in probes])
    changed = (after != before)[:, :, cell[0], cell[1]].any(1)
    rows, columns = changed[:side].nonzero().flatten(), changed[side:].nonzero().flatten()
    return rows.tolist(), columns.tolist()


def ends(span):
    return span.low, span.high


@settings(max_examples=40, deadline=None)
@given(parts=st.lists(blocks, min_size=1, max_size=3))
def test_fields_are_those_of_brute_force(parts):
    module = nn.Sequential(*[Block(**part) for part in parts])
    side = 64
    pixels = torch.ones(1, 1, side, side)
    with FieldMode() as fields, torch.inference_mode():
        fields.start(pixels)
        maps = module(pixels)
    field = fields.find(maps)
    assert field is not None
    seen = [
        (place, *(end + place * span.stride for span in (field.y, field.x) for end in ends(span)))
        for place in range(min(maps.shape[-2:]))
    ]
    inside = [cell for cell in seen if min(cell[1:]) >= 0 and max(cell[1:]) < side]
    if not inside:
        return
    place, top, bottom, left, right = inside[len(inside) // 2]
    rows, columns = touched(module, side, (place, place))
    assert (rows[0], rows[-1]) == (top, bottom)
    assert (columns[0], columns[-1]) == (left, right)
    if field.stride is not None and field.size is not None and field.offset is not None:
        assert field.offset + place * field.stride == (rows[0] + rows[-1]) / 2
        assert field.size == rows[-1] - rows[0] + 1


ones = torch.ones(2, 3, 3, 3)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: functional.conv2d(x, ones, padding="same", dilation=2), (1, 0.0, 5)),
        (lambda x: functional.conv2d(x, ones, padding="valid"), (1, 1.0, 3)),
        (lambda x: functional.max_pool2d(x, 2), (2, 0.5, 2)),
        (lambda x: functional.max_pool2d(x, 2, return_indices=True)[0], (2, 0.5, 2)),
        (lambda x: functional.avg_pool2d(x, 3, 2, 1, True), (2, 0.0, 3)),
        (lambda x: functional.avg_pool2d(x, kernel_size=2, stride=1), (1, 0.5, 2)),
        (lambda x: functional.adaptive_avg_pool2d(x, 16), (1, 0.0, 1)),
        (lambda x: functional.adaptive_avg_pool2d(x, 4), None),
        (lambda x: functional.conv2d(x, ones[..., :1]), (1, None, None)),
        (lambda x: x.mean((2, 3), keepdim=True), None),
        (lambda x: x * x.mean((2, 3), keepdim=True), None),
        (lambda x: x + torch.ones(16, 16), (1, 0.0, 1)),
        (lambda x: x[:, 1:], (1, 0.0, 1)),
        (lambda x: x[:, :, 1:], None),
        (lambda x: x[:, :, torch.arange(16).flip(0)], None),
        (lambda x: x.transpose(2, 3), None),
        (lambda x: x.flip(3), None),
        (lambda x: x.flatten(1), None),
        (lambda x: torch.cat([x, x], 2), None),
        (lambda x: torch.cat([x, functional.max_pool2d(x, 3, 1, 1)], 1), (1, 0.0, 3)),
        (lambda x: functional.max_pool2d(x, 2, 1) + x[:, :, 1:, 1:], None),
        (lambda x: functional.interpolate(x, scale_factor=2), None),
        (lambda x: functional.conv2d(torch.ones(1, 2, 16, 16), x[:, :2, :3, :3]), None),
        (lambda x: functional.instance_norm(x), None),
        (lambda x: torch.softmax(x, 3), None),
        (lambda x: x.float().clone().relu_().add_(1), (1, 0.0, 1)),
        (lambda x: x.view(1, 3, 1, 16, 16).transpose(1, 2).reshape(1, 3, 16, 16), (1, 0.0, 1)),
    ],
)
def test_operations(function, expected):
    pixels = torch.zeros(1, 3, 16, 16)
    with FieldMode() as fields:
        fields.start(pixels)
        result = function(pixels)
    field = fields.find(result)
    if expected is None:
        assert field is None
    else:
        assert field is not None
        assert (field.stride, field.offset, field.size) == expected


def test_assignment_into_a_map_loses_its_field():
    pixels = torch.zeros(1, 3, 16, 16)
    with FieldMode() as fields:
        fields.start(pixels)
        maps = pixels.clone()
        maps[:, :, 0] = pixels[:, :, 5]
    assert fields.find(maps) is None


BGR = torch.tensor([2, 1, 0])


def body(before):
    class Behind(nn.Module):
        """Convolutions and a pooling behind what somebody does to the images first."""

        def __init__(self):
            super().__init__()
            self.first, self.pool = nn.Conv2d(3, 4, 5, 2, 2), nn.MaxPool2d(3, 2, 1)

        def forward(self, images):
            return self.pool(self.first(before(images)).relu())

    return Behind()


@pytest.mark.parametrize(
    "before",
    [
        lambda x: x.flip(1),
        lambda x: x[:, [2, 1, 0]],
        lambda x: x[..., BGR, :, :],
        lambda x: x.index_select(-3, BGR),
        lambda x: torch.stack(x.unbind(1)[::-1], dim=1),
        lambda x: x.roll(1, 1),
        lambda x: x.softmax(dim=1) - x.mean(1, keepdim=True),
        lambda x: functional.normalize(x),
        lambda x: torch.einsum("bchw,cd->bdhw", x, torch.eye(3)[BGR]),
        lambda x: x.gather(1, BGR[None, :, None, None].expand_as(x)),
        lambda x: (x.permute(0, 2, 3, 1) @ torch.eye(3)[BGR]).permute(0, 3, 1, 2),
        lambda x: x.mean(1)[:, None].repeat(1, 3, 1, 1),
    ],
)
def test_what_leaves_cells_in_place_keeps_their_fields(wrap, before):
    """Convolution: cells at 2i, 5 px wide; pooling: at 4i, of 3 of these, 9 px wide."""
    torch.manual_seed(0)
    found = list_layers(wrap(body(before)), 32)
    assert [(layer.stride, layer.offset, layer.receptive_field) for layer in found] == [
        (2, 0.0, 5),
        (4, 0.0, 9),
    ]


@pytest.mark.parametrize(
    "before",
    [
        lambda x: x.flip(-1),
        lambda x: x.flip(2),
        lambda x: x.rot90(1, (2, 3)),
        lambda x: functional.interpolate(x, (20, 20)),
        lambda x: x.cumsum(2),
        lambda x: x - x.amin((1, 2, 3), keepdim=True),
        lambda x: x - x.flatten(1).median(dim=1).values[:, None, None, None],
        lambda x: functional.group_norm(x, 1),
        lambda x: functional.avg_pool2d(x, 1).roll((0, 1), (1, 2)),
    ],
)
def test_what_moves_or_mixes_cells_does_not(wrap, before):
    torch.manual_seed(0)
    assert all(each.receptive_field is None for each in list_layers(wrap(body(before)), 32))


def test_random_numbers_are_not_drawn_to_see_what_stays_in_place():
    pixels = torch.zeros(1, 3, 8, 8)
    before = torch.random.get_rng_state()
    with FieldMode() as fields:
        fields.start(pixels)
        flipped = pixels.flip(1)
    assert fields.find(flipped) == fields.find(pixels)
    assert torch.equal(torch.random.get_rng_state(), before)

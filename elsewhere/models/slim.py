"""Narrow, shallow members of torchvision's families, for canvases of 48 to 64 px and laptops."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torchvision.models import (
    AlexNet,
    ConvNeXt,
    DenseNet,
    GoogLeNet,
    SwinTransformer,
    VisionTransformer,
)
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.googlenet import BasicConv2d, Inception, InceptionAux
from torchvision.models.resnet import BasicBlock, ResNet

from elsewhere.errors import InputError
from elsewhere.models.zoo import initialize


class SlimAlexNet(AlexNet):  # type: ignore[misc]
    """AlexNet's layers and names with `width` times its channels (Krizhevsky et al. 2012).

    The first convolution has 7 x 7 px and a stride of 2, in place of 11 x 11 px and 4, for small
    canvases: ``canvas / 16`` cells are left a side. There are two fully connected layers of
    `hidden` units before the head.
    """

    def __init__(
        self, *, width: float, hidden: int, canvas: int, num_classes: int, dropout: float
    ) -> None:
        super(AlexNet, self).__init__()  # whose own layers are 240 MB
        counts = [max(1, round(count * width)) for count in (64, 192, 384, 256, 256)]
        shapes = ((7, 2, 3), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))
        parts: list[nn.Module] = []
        for before, count, (kernel, stride, padding) in zip(
            (3, *counts[:-1]), counts, shapes, strict=True
        ):
            number = len([part for part in parts if isinstance(part, nn.Conv2d)])
            parts += [nn.Conv2d(before, count, kernel, stride, padding), nn.ReLU(inplace=True)]
            if number in (0, 1, 4):
                parts.append(nn.MaxPool2d(kernel_size=3, stride=2))
        self.canvas_size = canvas
        self.features = nn.Sequential(*parts)
        with torch.no_grad():
            side = self.features(torch.zeros(1, 3, canvas, canvas)).shape[-1]
        self.avgpool = nn.AdaptiveAvgPool2d((side, side))
        self.classifier = nn.Sequential(
            nn.Dropout(p=dropout),
            nn.Linear(counts[-1] * side * side, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(p=dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, num_classes),
        )
        initialize(self)


def alexnet_slim(
    *,
    width: float = 0.125,
    hidden: int = 256,
    canvas: int = 64,
    num_classes: int = 1000,
    dropout: float = 0.5,
) -> SlimAlexNet:
    """Return AlexNet's topology with `width` times its channels, for canvases from 31 px on."""
    if canvas < 31:
        raise InputError(
            f"canvas={canvas} is too small for AlexNet's poolings; expected 31 or more"
        )
    return SlimAlexNet(
        width=width, hidden=hidden, canvas=canvas, num_classes=num_classes, dropout=dropout
    )


def googlenet_slim(
    *, width: float = 0.125, canvas: int = 64, num_classes: int = 1000, dropout: float = 0.2
) -> GoogLeNet:
    """Return GoogLeNet's nine modules with `width` times their channels (Szegedy et al. 2015).

    `width` is a multiple of 1/16, so that every branch keeps its share. The stem has neither stride
    nor pooling before its third convolution, for small canvases: ``canvas / 8`` cells are left.
    """
    if width <= 0 or width * 16 != round(width * 16):
        raise InputError(f"width must be a multiple of 1/16 above 0; got {width!r}")

    def convolution(before: int, count: int, **how: int) -> BasicConv2d:
        return BasicConv2d(
            before if before == 3 else round(before * width), round(count * width), **how
        )

    network = GoogLeNet(
        num_classes=num_classes,
        aux_logits=False,
        init_weights=False,
        blocks=[convolution, partial(Inception, conv_block=convolution), InceptionAux],
        dropout=dropout,
    )
    network.conv1 = BasicConv2d(3, round(64 * width), kernel_size=3, padding=1)
    network.maxpool1 = nn.Identity()
    network.fc = nn.Linear(round(1024 * width), num_classes)
    network.canvas_size = canvas
    initialize(network)
    return network


class SlimResNet(ResNet):  # type: ignore[misc]
    """ResNet-18's blocks and names with `width` channels in the first stage, and a stem of 3x3.

    The stem has neither stride nor pooling, as for the small pictures of the first paper (He et
    al. 2016, section 4.2): four stages leave ``canvas / 8`` cells a side.
    """

    def __init__(self, *, width: int, canvas: int, num_classes: int) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)
        self.canvas_size = canvas
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity()
        for stage in range(4):
            layer = self._make_layer(BasicBlock, width * 2**stage, 2, stride=1 if stage == 0 else 2)
            self.set_submodule(f"layer{stage + 1}", layer)
        self.fc = nn.Linear(width * 8, num_classes)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


def resnet18_slim(*, width: int = 16, canvas: int = 64, num_classes: int = 1000) -> SlimResNet:
    """Return ResNet-18's topology with `width` channels in the first stage, twice in each next."""
    return SlimResNet(width=width, canvas=canvas, num_classes=num_classes)


def densenet_slim(*, growth: int = 12, canvas: int = 64, num_classes: int = 1000) -> DenseNet:
    """Return a DenseNet of four blocks of 4 layers, `growth` channels each (Huang et al. 2017)."""
    network = DenseNet(growth, (4, 4, 4, 4), 2 * growth, num_classes=num_classes)
    network.features.conv0 = nn.Conv2d(3, 2 * growth, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.features.conv0.weight)
    network.canvas_size = canvas
    return network


def convnext_slim(
    *, width: int = 16, patch: int = 2, canvas: int = 64, num_classes: int = 1000
) -> ConvNeXt:
    """Return ConvNeXt of four stages of 1, 1, 3 and 1 blocks, `width` channels in the first (Liu
    et al. 2022).

    Patches are of `patch` px, for small canvases: ``canvas / (8 * patch)`` cells are left a side,
    which must be whole, for a stage drops the row and the column that remain.
    """
    if patch < 1 or canvas % (8 * patch):
        raise InputError(
            f"canvas={canvas} is no multiple of 8 patches of {patch} px: cells at the edge would "
            "be dropped; choose another canvas or patch"
        )
    sizes = [width * 2**stage for stage in range(4)]
    stages = [
        CNBlockConfig(size, following, depth)
        for size, following, depth in zip(sizes, [*sizes[1:], None], (1, 1, 3, 1), strict=True)
    ]
    network = ConvNeXt(stages, num_classes=num_classes)
    stem = nn.Conv2d(3, width, kernel_size=patch, stride=patch)
    nn.init.trunc_normal_(stem.weight, std=0.02)
    if stem.bias is not None:  # it is there; types do not say so
        nn.init.zeros_(stem.bias)
    network.features[0][0] = stem
    network.canvas_size = canvas
    return network


def vit_slim(
    *, width: int = 96, patch: int = 8, layers: int = 6, canvas: int = 64, num_classes: int = 1000
) -> VisionTransformer:
    """Return a vision transformer of 4 heads and `width` features (Dosovitskiy et al. 2021)."""
    network = VisionTransformer(canvas, patch, layers, 4, width, 4 * width, num_classes=num_classes)
    nn.init.normal_(network.heads.head.weight, std=width**-0.5)  # torchvision's is zero
    network.canvas_size = canvas
    return network


def swin_slim(*, width: int = 24, canvas: int = 64, num_classes: int = 1000) -> SwinTransformer:
    """Return a Swin transformer of three stages of two blocks, windows of 4 patches of 4 px (Liu
    et al. 2021). A canvas is a multiple of a patch, or pixels at its edge would be dropped."""
    if canvas % 4:
        raise InputError(
            f"canvas={canvas} is no multiple of the patches of 4 px: pixels at the edge would be "
            "dropped; choose another canvas"
        )
    network = SwinTransformer(
        patch_size=[4, 4],
        embed_dim=width,
        depths=[2, 2, 2],
        num_heads=[2, 4, 8],
        window_size=[4, 4],
        stochastic_depth_prob=0.0,
        num_classes=num_classes,
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
    )
    network.canvas_size = canvas
    return network

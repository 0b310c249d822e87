import io
import os
import pickle
import shutil
import zipfile
from urllib.error import URLError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from elsewhere.errors import InputError, WeightsError
from elsewhere.models import InputTransform, load_model, read_state, state_sha256
from elsewhere.models.weights import fit_state
from elsewhere.models.zoo import small_cnn

SMALL = {"channels": "4-8", "canvas": 16, "hidden": 6}


def load(path, **options):
    return load_model("small-cnn", weights=str(path), model_args=SMALL, **options)


@pytest.fixture
def state():
    return load_model("small-cnn", model_args=SMALL, seed=7).module.state_dict()


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(first, second):
    return list(first) == list(second) and all(torch.equal(first[k], second[k]) for k in first)


def test_formats_wrappers_and_prefixes_give_the_same_network(tmp_path, state):
    torch.save(state, tmp_path / "plain.pth")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "wrapped.pth")
    parallel = {f"module.{key}": value for key, value in state.items()}
    torch.save({"model": parallel, "loss": 0.5}, tmp_path / "parallel.pth")
    save_file(state, tmp_path / "state.safetensors")
    digests = set()
    for path in sorted(tmp_path.iterdir()):
        model = load(path, seed=1)
        assert same(model.module.state_dict(), state), path.name
        assert model.weights == path.name
        assert model.random_keys == ()
        assert model.transform == InputTransform()
        digests.add(model.weights_sha256)
    assert digests == {state_sha256(state)}


def test_given_transform_is_kept_for_files(tmp_path, state):
    torch.save(state, tmp_path / "plain.pth")
    transform = InputTransform(mean=(0.5, 0.5, 0.5), gain=2.0)
    assert load(tmp_path / "plain.pth", transform=transform).transform == transform


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_digest_changes_with_any_bit(data):
    state = small_cnn(channels="2", canvas=4, hidden=3, num_classes=2, batch_norm=True)
    state = {key: value.clone() for key, value in state.state_dict().items()}
    before = state_sha256(state)
    assert state_sha256(dict(reversed(state.items()))) == before
    tensor = state[data.draw(st.sampled_from(sorted(state)))]
    raw = tensor.reshape(-1).view(torch.uint8)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert state_sha256(state) != before


def test_digest_knows_names_shapes_and_dtypes():
    zeros = torch.zeros(4)
    others = [
        {"a": zeros},
        {"b": zeros},
        {"a": zeros.reshape(2, 2)},
        {"a": zeros.to(torch.int32)},
        {"a": zeros.to(torch.bfloat16)},
        {"a": torch.tensor(0.0)},
        {"a": torch.zeros(0)},
        {},
    ]
    assert len({state_sha256(state) for state in others}) == len(others)
    strided = torch.arange(6.0).reshape(2, 3).t()
    assert state_sha256({"a": strided}) == state_sha256({"a": strided.contiguous()})


def test_keys_that_do_not_fit_are_named(tmp_path, state):
    path = tmp_path / "s.pth"
    short = {key: value for key, value in state.items() if not key.startswith("classifier.6")}
    torch.save(short, path)
    with pytest.raises(WeightsError, match=r"2 missing: classifier\.6\.weight") as caught:
        load(path)
    assert "allow partial" in one_line(caught)
    torch.save({**state, "extra.bias": torch.zeros(1)}, path)
    for partial in (False, True):
        with pytest.raises(WeightsError, match=r"1 unexpected: extra\.bias"):
            load(path, partial_weights=partial)
    torch.save({**state, "classifier.6.bias": torch.zeros(3)}, path)
    for partial in (False, True):
        with pytest.raises(WeightsError, match=r"classifier\.6\.bias \(3,\) instead of \(10,\)"):
            load(path, partial_weights=partial)
    torch.save({f"x{n}": torch.zeros(1) for n in range(9)}, path)
    with pytest.raises(WeightsError, match=r"9 unexpected: x0, x1, x2, \.\.\.") as caught:
        load(path)
    assert "12" in one_line(caught) or "missing" in one_line(caught)


def test_partial_weights_leave_the_rest_random(tmp_path, state):
    path = tmp_path / "trunk.pth"
    torch.save({key: value for key, value in state.items() if "features" in key}, path)
    model = load(path, partial_weights=True, seed=3)
    fresh = load_model("small-cnn", model_args=SMALL, seed=3).module.state_dict()
    head = tuple(key for key in state if "classifier" in key)
    assert model.random_keys == head
    for key, value in model.module.state_dict().items():
        assert torch.equal(value, (fresh if key in head else state)[key])


def test_missing_batch_counts_are_no_gap():
    module = small_cnn(channels="2", canvas=4, hidden=3, batch_norm=True)
    state = {k: v for k, v in module.state_dict().items() if "num_batches" not in k}
    assert fit_state(module, state, source="file") == ()


class Trap:
    """Creates a file when it is unpickled without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("how", ["torch", "torch-old", "pickle", "safetensors"])
def test_files_that_hold_code_never_run_it(tmp_path, how):
    sprung = tmp_path / "sprung"
    path = tmp_path / ("trap.safetensors" if how == "safetensors" else "trap.pth")
    content = {"features.0.weight": torch.zeros(1), "x": Trap(sprung)}
    if how.startswith("torch"):
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch")
    else:
        path.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(WeightsError) as caught:
        load(path)
    assert not sprung.exists()
    assert str(path) in one_line(caught)
    if how != "safetensors":
        assert "run" in one_line(caught)
        assert "refused" in one_line(caught)
        pickle.loads(pickle.dumps(Trap(sprung)))  # the trap itself works
        assert sprung.exists()


def broken_files(folder, state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    whole = buffer.getvalue()
    (folder / "empty.pth").write_bytes(b"")
    (folder / "half.pth").write_bytes(whole[: len(whole) // 2])
    (folder / "head.pth").write_bytes(whole[:10])
    (folder / "text.pth").write_text("not weights\nat all\n")
    (folder / "zeros.pt").write_bytes(bytes(1000))
    save_file(state, folder / "s.safetensors")
    raw = (folder / "s.safetensors").read_bytes()
    (folder / "half.safetensors").write_bytes(raw[: len(raw) // 2])
    (folder / "s.safetensors").unlink()
    (folder / "empty.safetensors").write_bytes(b"")
    with zipfile.ZipFile(folder / "other.pth", "w") as archive:
        archive.writestr("hello.txt", "hello")
    torch.save([1, 2], folder / "list.pth")
    torch.save({}, folder / "nothing.pth")
    torch.save({"epoch": 1, "optimizer": {"lr": 0.1}}, folder / "other_keys.pth")
    torch.save(torch.zeros(3), folder / "tensor.pth")
    (folder / "directory.pth").mkdir()
    return sorted(folder.iterdir())


def test_broken_files_are_one_line(tmp_path, state):
    paths = [*broken_files(tmp_path, state), tmp_path / "absent.pth"]
    assert len(paths) == 14
    for path in paths:
        with pytest.raises(WeightsError) as caught:
            read_state(path)
        assert str(path) in one_line(caught), path.name
        assert len(str(caught.value)) < 400 + len(str(path))
    with pytest.raises(WeightsError, match="expected none, imagenet or a state file"):
        load_model("small-cnn", weights="imagnet")


@settings(max_examples=40, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_an_error_or_another_digest_but_never_a_crash(
    tmp_path_factory, place, bit
):
    state = {"a": torch.arange(8.0)}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    raw = bytearray(buffer.getvalue())
    raw[int(place * len(raw))] ^= 1 << bit
    path = tmp_path_factory.mktemp("flip") / "s.pth"
    path.write_bytes(raw)
    try:
        read_state(path)
    except WeightsError as error:
        assert "\n" not in str(error)  # noqa: PT017


# --- ImageNet weights, without a network

NET = "mobilenet_v3_small"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)

    def refuse(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return folder


def publish(folder, monkeypatch, seed=5):
    """Put a state in the cache as if it were the published one."""
    import hashlib

    import torchvision

    state = load_model(NET, seed=seed).module.state_dict()
    draft = folder / "draft.pth"
    torch.save(state, draft)
    digest = hashlib.sha256(draft.read_bytes()).hexdigest()[:8]
    weights = torchvision.models.get_model_weights(NET).DEFAULT
    monkeypatch.setattr(weights.value, "url", f"https://example.org/net-{digest}.pth")
    shutil.move(draft, folder / f"net-{digest}.pth")
    return state


def test_imagenet_weights_come_from_the_cache(cache, monkeypatch, capsys):
    state = publish(cache, monkeypatch)
    model = load_model(NET, weights="imagenet")
    assert same(model.module.state_dict(), state)
    assert (model.weights, model.random_keys) == ("imagenet", ())
    assert (model.classes[:2], len(model.classes)) == (("tench", "goldfish"), 1000)
    assert model.transform.mean == (0.485, 0.456, 0.406)
    assert model.transform.std == (0.229, 0.224, 0.225)
    assert load_model(NET, weights="imagenet", transform=model.transform).transform
    with pytest.raises(InputError, match="leave the input as it is"):
        load_model(NET, weights="imagenet", transform=InputTransform())
    assert capsys.readouterr().out == ""


IMAGENET_MEAN = (0.485, 0.456, 0.406)


def test_torchvisions_own_file_is_known_by_its_content_whatever_its_name(cache, monkeypatch):
    publish(cache, monkeypatch)
    path = next(cache.iterdir())
    other = path.rename(path.with_name("mine.pth"))
    for options in ({}, {"model_args": {"num_classes": 1000}}):
        model = load_model(NET, weights=str(other), **options)
        assert model.transform.mean == IMAGENET_MEAN
        assert model.notes == ()
    assert load_model(NET, weights=str(other), transform=model.transform).transform
    with pytest.raises(InputError, match=r"mine\.pth are torchvision's.*leave the input") as caught:
        load_model(NET, weights=str(other), transform=InputTransform(gain=2.0))
    one_line(caught)


@pytest.mark.parametrize("name", ["vgg16-397923af.pth", "copy.safetensors"])
def test_by_name_or_keys_the_published_input_is_assumed_and_said(tmp_path, name):
    path, vgg = tmp_path / name, name.startswith("vgg16")
    state = load_model(NET, seed=5).module.state_dict()
    (torch.save if name.endswith("pth") else save_file)(state, path)
    model = load_model(NET, weights=str(path))
    assert (model.transform.mean, model.transform.std) == (IMAGENET_MEAN, (0.229, 0.224, 0.225))
    (note,) = model.notes
    assert name in note
    assert ("is named like" if vgg else f"keys and shapes of {NET}") in note
    assert "--input-mean" in note
    built = load_model(NET, weights=str(path), model_args={"num_classes": 1000, "dropout": 0.1})
    assert (built.transform, built.notes) == (model.transform, model.notes)
    own = InputTransform(mean=(0.5, 0.5, 0.5))
    stated = load_model(NET, weights=str(path), transform=own)
    assert (stated.transform, stated.notes) == (own, ())


def test_an_input_that_nobody_states_is_said_to_be_assumed(tmp_path, state):
    torch.save(state, tmp_path / "mine.pth")
    model = load(tmp_path / "mine.pth")
    assert model.transform == InputTransform()
    assert "mine.pth do not state their input" in model.notes[0]
    assert load(tmp_path / "mine.pth", transform=InputTransform()).notes == ()
    assert load_model("small-cnn", model_args=SMALL).notes == ()
    # another head: torchvision published nothing like it
    head = load_model(NET, model_args={"num_classes": 7}).module.state_dict()
    torch.save(head, tmp_path / "seven.pth")
    seven = load_model(NET, weights=str(tmp_path / "seven.pth"), model_args={"num_classes": 7})
    assert seven.transform == InputTransform()
    assert "do not state their input" in seven.notes[0]


def test_a_vgg_of_other_origin_has_its_own_input(tmp_path, monkeypatch):
    """VGG16's second published set: values of 0..255 less a mean, by torchvision's constants."""
    import hashlib

    import torchvision

    state = load_model(NET, seed=6).module.state_dict()
    torch.save(state, tmp_path / "features.pth")
    digest = hashlib.sha256((tmp_path / "features.pth").read_bytes()).hexdigest()[:8]
    weights = torchvision.models.VGG16_Weights.IMAGENET1K_FEATURES
    monkeypatch.setattr(weights.value, "url", f"https://example.org/vgg16_features-{digest}.pth")
    model = load_model(NET, weights=str(tmp_path / "features.pth"))
    assert model.transform.mean == (0.48235, 0.45882, 0.40784)
    assert model.transform.std == pytest.approx((1 / 255, 1 / 255, 1 / 255))


def test_googlenet_turns_the_published_input_into_its_own(tmp_path):
    """torchvision builds it with ``transform_input`` where it loads its own file."""
    torch.save(
        load_model("googlenet", seed=1).module.state_dict(), tmp_path / "googlenet-1378be20.pth"
    )
    model = load_model("googlenet", weights=str(tmp_path / "googlenet-1378be20.pth"))
    assert model.transform.mean == IMAGENET_MEAN
    assert model.module.transform_input is True
    again = load_model("googlenet", model_args=model.arguments)
    assert again.module.transform_input is True


def test_imagenet_weights_with_another_head(cache, monkeypatch):
    state = publish(cache, monkeypatch)
    with pytest.raises(InputError, match="1000 classes; got num_classes=7"):
        load_model(NET, weights="imagenet", model_args={"num_classes": 7})
    model = load_model(NET, weights="imagenet", model_args={"num_classes": 7}, partial_weights=True)
    assert model.random_keys == ("classifier.3.weight", "classifier.3.bias")
    own = model.module.state_dict()
    assert all(torch.equal(own[key], state[key]) for key in state if key not in model.random_keys)
    assert own["classifier.3.weight"].shape[0] == 7
    assert model.classes == ()


def test_imagenet_weights_offline_or_altered(cache, monkeypatch, capsys):
    with pytest.raises(WeightsError, match=r"no network.*https://.*\.pth.*checkpoints") as caught:
        load_model("alexnet", weights="imagenet")
    one_line(caught)
    assert capsys.readouterr().out == ""  # torch announces the download on standard output
    publish(cache, monkeypatch)
    path = next(cache.iterdir())
    with path.open("r+b") as file:
        file.write(b"altered")
    with pytest.raises(WeightsError, match="are not the published ones") as caught:
        load_model(NET, weights="imagenet")
    one_line(caught)
    with pytest.raises(InputError, match="no ImageNet weights are published for small-cnn"):
        load_model("small-cnn", weights="imagenet")

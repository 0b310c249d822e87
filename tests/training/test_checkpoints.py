"""Checkpoints that are damaged or of another network are refused in one line."""

import json

import pytest

from elsewhere.errors import ElsewhereError, StorageError, WeightsError
from elsewhere.models.names import unknown_model
from elsewhere.storage.files import is_checkpoint
from elsewhere.storage.seal import seal_table
from elsewhere.training import list_checkpoints, load_checkpoint, read_card, train


@pytest.fixture(scope="module")
def run(make_curriculum, make_phase, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return train(make_curriculum(make_phase(steps=2)), out, device="cpu")


@pytest.fixture
def checkpoint(run, tmp_path):
    path = list_checkpoints(run)[-1].path
    for source in (path, path.with_suffix(".json")):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    return tmp_path / path.name


def change_card(path, **changes):
    """Write another card, sealed as whoever writes it can seal it."""
    card = path.with_suffix(".json")
    table = json.loads(card.read_text()) | changes
    del table["seal"]
    card.write_text(json.dumps(seal_table(table)))


def test_reads_by_either_name(checkpoint):
    assert is_checkpoint(checkpoint)
    assert is_checkpoint(checkpoint.with_suffix(".json"))
    assert not is_checkpoint("vgg16")
    assert read_card(checkpoint) == read_card(checkpoint.with_suffix(".json"))
    assert (
        load_checkpoint(checkpoint.with_suffix(".json")).weights_sha256
        == load_checkpoint(checkpoint).weights_sha256
    )


def test_one_flipped_bit_is_found(checkpoint):
    data = bytearray(checkpoint.read_bytes())
    data[-3] ^= 1
    checkpoint.write_bytes(data)
    with pytest.raises(WeightsError, match="damaged"):
        load_checkpoint(checkpoint)


def test_truncated_and_missing(checkpoint):
    checkpoint.write_bytes(checkpoint.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="damaged"):
        load_checkpoint(checkpoint)
    checkpoint.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        load_checkpoint(checkpoint)
    checkpoint.with_suffix(".json").unlink()
    with pytest.raises(StorageError, match="card"):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"elsewhere_encoding": "run"}', "nonsense"])
def test_damaged_cards(checkpoint, text):
    checkpoint.with_suffix(".json").write_text(text)
    with pytest.raises(StorageError) as caught:
        load_checkpoint(checkpoint)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"arguments": {"channels": "4-8", "hidden": 99, "canvas": 16}},
        {"arguments": {"channels": "4-8-8", "hidden": 12, "canvas": 16}},
        {"model": "vgg16-slim", "arguments": {"width": 0.01, "hidden": 4}},
        {"model": "unknown"},
        {"gain": 0},
        {"canvas": {"size": 3, "object_size": 7, "background": 0}},
        {"colour": "red"},
    ],
)
def test_another_architecture(checkpoint, changes):
    change_card(checkpoint, **changes)
    with pytest.raises(ElsewhereError) as caught:
        load_checkpoint(checkpoint)
    assert isinstance(caught.value, WeightsError | StorageError)
    assert "\n" not in str(caught.value)


def test_a_directory_without_checkpoints(tmp_path):
    with pytest.raises(StorageError, match="no checkpoint"):
        list_checkpoints(tmp_path)


def test_it_is_said_which_file_of_a_checkpoint_is_missing(tmp_path):
    weights, card = tmp_path / "a.safetensors", tmp_path / "a.json"
    assert str(unknown_model(str(weights))).endswith(f"there is no file {weights}")
    card.touch()
    for named in (weights, card):
        assert f"the file {weights} is missing" in str(unknown_model(str(named)))
    card.unlink()
    weights.touch()
    assert f"its card {card} is missing" in str(unknown_model(str(weights)))

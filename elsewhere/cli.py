"""The command line: each command parses, calls one function of the library and reports.

Data goes to standard output, progress and messages to standard error. Exit 1 for what the library
refuses, with one line; 2 for wrong usage. The library is imported inside the commands, so that
``--help`` answers at once.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from elsewhere.commands import (
    accuracy,
    attribution,
    comparison,
    measure,
    network,
    probe,
    recording,
    report,
    reproduction,
    results,
    training,
)
from elsewhere.errors import ElsewhereError, InputError
from elsewhere.options import takes
from elsewhere.terminal import LossyStream, VisibleFormatter, check_different, say


class _Commands(TyperGroup):
    """Turns what the library refuses into one line and exit 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except ElsewhereError as error:
            say(f"error: {error}")
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            say("interrupted; nothing unfinished stands under a finished name")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            raise typer.Exit(1) from None
        except (OSError, MemoryError, RuntimeError) as error:  # the system's word, on sizes
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise  # torch says so when there is not enough
            name = getattr(error, "filename", None)
            reason = (
                getattr(error, "strerror", None) or str(error).split("\n")[0] or "out of memory"
            )
            if getattr(error, "errno", None) == errno.ENOSPC and name is None:
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (full: nothing left to flush)
                name, reason = reason, "cannot write to standard output (files of --out are whole)"
            say(f"error: {reason}" + (f": {name}" if name else ""))
            raise typer.Exit(1) from error


RENAMED = {"--exemplars": "--per-category", "--measures": "--names"}
"""Old spellings of options, still taken."""

NO_AXIS = dict.fromkeys(
    ("attribute", "sanity"),
    "maps lie in the frame of one object as it is; put changed objects in a folder (--objects "
    "folder:PATH), or measure along the axis (similarity, probe, accuracy)",
)
"""Commands that take no `--axis` although they show objects, and what to do instead."""


class _Command(TyperCommand):
    """Looks at what a command is to write, and to read, before it is run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = [each.partition("=") for each in args]
        if ctx.info_name in NO_AXIS and any(name == "--axis" for name, *_ in named):
            raise InputError(f"{ctx.info_name} takes no --axis: {NO_AXIS[ctx.info_name]}")
        return super().parse_args(
            ctx, [RENAMED.get(name, name) + equals + value for name, equals, value in named]
        )

    def invoke(self, ctx: Any) -> Any:
        check_different(
            {max(each.opts, key=len): ctx.params.get(each.name) for each in self.params}
        )
        return super().invoke(ctx)


app = typer.Typer(
    cls=_Commands,
    name="elsewhere",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Trained here, recognised elsewhere? Records networks for objects at every location of a "
    "canvas, and measures in which layer an object's code survives the move.",
    epilog="Example: elsewhere record vgg16 --objects novel --grid 7x7 --out run.h5",
)

COMMANDS: dict[str, dict[Callable[..., None], str]] = {
    "Networks": {
        network.models: "",
        network.layers: "vgg16",
        network.objects: "glyphs --out glyphs.png",
    },
    "Recordings": {
        recording.plan: "vgg16 --grid stride:7",
        recording.record: "vgg16 --objects novel --grid 7x7 --out run.h5",
        recording.inspect: "run.h5",
        recording.verify: "run.h5",
    },
    "Analyses": {
        measure.similarity: "run.h5 --metric evoked --out sim.nc",
        results.figure: "sim.nc --out fig.svg",
        measure.measure: "run.h5 --names cosine,cka,partition --out measures.nc",
        comparison.compare: "vgg16.nc resnet18.nc --out comparison.nc",
        results.table: "sim.nc --out sim.csv",
        results.methods: "run.h5 --out methods.md",
        probe.probe: "run.h5 --train-at left --out probe.nc",
        attribution.attribute: "run/checkpoints/novel-000500.safetensors --out attr.nc",
        attribution.sanity: "vgg11-slim --target logit:predicted --out sanity.nc",
    },
    "Reports": {
        report.report: "claims --out report.html",
        report.check: "report.html --data claims",
    },
    "Training": {
        training.train: "quick/vanilla --out run",
        accuracy.accuracy: "run/checkpoints/novel-000500.safetensors --out acc.nc",
        training.track: "run --out track.nc",
        reproduction.reproduce: "--scale quick --out claims",
    },
}
"""The commands by what they are about, each with the arguments of its example."""

for _panel, _commands in COMMANDS.items():
    for _command, _example in _commands.items():
        app.command(
            cls=_Command,
            rich_help_panel=_panel,
            epilog=f"Example: elsewhere {_command.__name__} {_example}".rstrip(),
        )(takes(_command))


def main() -> None:
    """Run the command line."""
    sys.stderr = LossyStream(sys.stderr)
    handler = logging.StreamHandler()
    handler.addFilter(lambda record: not getattr(record, "noted", False))
    handler.setFormatter(VisibleFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    try:
        app()
    finally:
        _flush()


def _flush() -> None:
    """Write what is waiting for standard output; where that fails, say so in one line."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            say(f"error: cannot write to standard output: {error.strerror or error}")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

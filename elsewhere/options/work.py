"""What the work may take, who shares it, and what is kept of it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from elsewhere.errors import InputError
from elsewhere.options.groups import OptionGroup, choose
from elsewhere.options.single import DtypeOption
from elsewhere.types import parse_bytes

ENGINES = ("auto", "incremental", "dense")


@dataclasses.dataclass(kw_only=True)
class CostOptions(OptionGroup):
    """How the work is done, and what it may take."""

    panel = "Cost"
    engine: Annotated[
        str,
        Option(
            "--engine",
            help="auto; incremental: only what an object (or what covers it) changes; dense: "
            "whole canvases; one of your own: package.module:name.",
        ),
    ] = "auto"
    max_memory: Annotated[
        str, Option("--max-memory", help="For activations, maps and fits, e.g. 2GiB.")
    ] = "2GiB"
    threads: Annotated[int | None, Option("--threads", help="CPU threads of the network.")] = None
    workers: Annotated[
        int,
        Option(
            "--workers",
            help="Local processes that share the work; `reproduce`: by default one for each core.",
        ),
    ] = 1
    scheduler: Annotated[
        str | None,
        Option("--scheduler", help="A Dask scheduler whose workers share it: tcp://host:port."),
    ] = None

    @property
    def shared(self) -> bool:
        """Whether several processes do the work."""
        return self.n_workers > 1 or self.scheduler is not None

    @property
    def sharing(self) -> int | Sequence[str]:
        """The local processes that share the work, or their devices."""
        return self.devices or self.workers

    @property
    def n_workers(self) -> int:
        """How many local processes share the work."""
        return len(self.devices) or self.workers

    def check(self, model: str | None = None) -> None:
        """Refuse what cannot be; the module of a factory may register engines when it is loaded."""
        loaded = sys.modules.get("elsewhere.recording.engines")
        if ":" in self.engine:
            from elsewhere.recording.engines import engines

            self.engine = engines.named(self.engine)
        elif ":" not in (model or ""):
            known = ENGINES if loaded is None else ("auto", *loaded.engines)
            choose("engine", self.engine, known)
        parse_bytes(self.max_memory)
        if self.workers < 1:
            raise InputError(f"--workers must be at least 1; got {self.workers}")
        if self.workers > 1 and self.scheduler is not None:
            raise InputError("--workers are local processes, --scheduler is a cluster; give one")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"--threads must be at least 1; got {self.threads}")

    def set_threads(self) -> None:
        """Set torch's number of CPU threads, if one is given."""
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)


@dataclasses.dataclass(kw_only=True)
class KeepOptions(OptionGroup):
    """What is kept, and how."""

    panel = "What is kept"
    keep: Annotated[
        list[str], Option("--keep", help="LAYER=full, mean or sketch:K; repeatable.")
    ] = dataclasses.field(default_factory=list)
    dtype: DtypeOption = "float32"
    measure: Annotated[
        Path | None,
        Option("--similarity", help="Also measure similarity in the same sweep, into this file."),
    ] = None
    measure_layers: Annotated[
        list[str], Option("--similarity-layers", help="Of these layers, kept or not.")
    ] = dataclasses.field(default_factory=lambda: ["*"])

    def check(self) -> None:
        """Refuse choices that are none."""
        choose("dtype", self.dtype, ("float32", "float16"))
        if self.measure is None and self.measure_layers != ["*"]:
            raise InputError("--similarity-layers has no use without --similarity FILE; give both")
        from elsewhere.recording import parse_keeps

        parse_keeps(self.keep)

    def header(self, seed: int, max_memory: str) -> dict[str, Any]:
        """Return what `plan` and `record` take of these options."""
        from elsewhere.recording import parse_keeps

        return {
            "keep": parse_keeps(self.keep),
            "dtype": self.dtype,
            "seed": seed,
            "max_memory": max_memory,
        }

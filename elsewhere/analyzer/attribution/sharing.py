"""Attribution by several processes: each object, or checkpoint, by whichever process has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elsewhere.analyzer.attribution.objects import ObjectRun
from elsewhere.analyzer.attribution.settings import AttributionSettings
from elsewhere.errors import InputError, StorageError
from elsewhere.models import describe_code
from elsewhere.models.machine import code_version
from elsewhere.recording import Sweep
from elsewhere.recording.engines import numerics
from elsewhere.storage.locks import Claim
from elsewhere.storage.parts import (
    changed_behaviour,
    differing,
    mark_of,
    read_manifest,
    write_portion,
)
from elsewhere.storage.results import to_bytes

_DETERMINING = (
    "model",
    "weights_sha256",
    "canvas",
    "object_size",
    "background",
    "mean",
    "std",
    "gain",
    "channels",
)


@dataclass
class ObjectJob:
    """What a process needs to attribute objects; see :class:`elsewhere.recording.workers.Job`.

    Parameters
    ----------
    sweep, settings, classes, max_memory
        See :func:`elsewhere.analyzer.attribution.attribute`.
    folder
        Of the parts; every process sees it under this name.
    claim
        Of the run that asks: what outlives it writes nothing more.
    """

    sweep: Sweep
    settings: AttributionSettings
    classes: Sequence[str] | None
    max_memory: int
    folder: Path
    claim: Claim | None = None
    _runs: list[ObjectRun] = field(default_factory=list)
    _mark: str = ""

    def prepare(self) -> None:
        """Refuse to compute what would not be the same as elsewhere."""
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise StorageError(
                f"{self.folder} has no manifest here; every worker must see the same files"
            )
        run = ObjectRun(
            self.sweep, self.settings, classes=self.classes, max_memory=self.max_memory
        )  # fmt: skip
        if names := differing(manifest["identity"], fields_of(run)):
            raise InputError(
                f"a worker would compute something else (it differs in {', '.join(names)}); use "
                "machines of one kind and one version of torch"
            )
        if names := changed_behaviour(manifest, run.conduct.behaviour):
            raise InputError(
                f"a worker's network does something else in {', '.join(names)} than that of the "
                "process that began: something of it was set there only; set it in its module"
            )
        self._runs, self._mark = [run], mark_of(manifest)

    def perform(self, number: int) -> int:
        """Attribute an object and return how many images that took."""
        shard = self._runs[0].measure(number)
        write_portion(self.folder, number, to_bytes(shard), mark=self._mark, claim=self.claim)
        return self.sweep.design.n_positions


def fields_of(run: ObjectRun) -> dict[str, Any]:
    """Return what determines the maps: parts of another run are refused."""
    sweep, told = run.sweep, run.sweep.provenance
    return {
        "attribution": run.settings.fields(sweep.canvas) | {"target": run.target.name},
        "axes": sweep.design.axes.fields,
        "reference": list(sweep.reference),
        "object_digest": sweep.objects.digest(),
        "classes": None if run.classes is None else run.classes.tolist(),
        "numerics": numerics_of(run),
        **{name: told[name] for name in _DETERMINING if name in told},
        "network": describe_code(sweep.model.module),
        "code": code_version(),
    }


def numerics_of(run: ObjectRun) -> dict[str, Any]:
    """Return what the last bits of the maps depend on."""
    return numerics(run.choice.name, run.sweep.model, run.explainer.rows)

"""Engines, which take a sweep's images through a network, and the choice among them.

An engine is a :class:`SweepEngine`; what makes one for a network is registered in `engines`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from elsewhere.errors import InputError
from elsewhere.models import Conduct, untouched
from elsewhere.models.forward import computing
from elsewhere.recording.engines.base import (
    Cut,
    EngineChoice,
    NotApplicable,
    SweepEngine,
    failing,
    numerics,
)
from elsewhere.recording.engines.compiling import compile_windows, not_worth, saving, weigh
from elsewhere.recording.engines.dense import DenseEngine
from elsewhere.recording.engines.varied import VariedEngine
from elsewhere.recording.subject import Subject
from elsewhere.registry import Registry

engines: Registry[Callable[..., SweepEngine]] = Registry("engine")
"""Each makes an engine of a :class:`Subject` and its conduct, or raises :class:`NotApplicable`;
``asked`` says whether it was asked for by name.
``auto`` takes the first that applies, dense last."""
engines.add("incremental", compile_windows, summary="the windows that an object changes")
engines.add("dense", DenseEngine, summary="whole canvases")


def choose_engine(
    subject: Subject,
    conduct: Conduct,
    wanted: str,
    aside: Sequence[str] = (),
    begun: Sequence[str] = (),
) -> SweepEngine:
    """Return the engine called `wanted` for a sweep, or for ``auto`` the first that applies and
    pays; whole canvases, if there are reasons to leave all others `aside`. One by which the sweep
    was `begun` need not pay.

    Raises
    ------
    InputError
        An engine is asked for by name and does not apply.
    """
    model, reasons, names = subject.model, list[str](), [wanted]
    if wanted == "auto":
        reasons += aside
        names = ["dense"] if aside else sorted(engines, key=lambda name: name == "dense")
    for name in names:
        try:
            with computing(model.device, model.precision), untouched(model.module):
                engine = engines.get(name)(subject, conduct, asked=name == wanted or name in begun)
        except NotApplicable as error:
            if name == wanted:
                raise InputError(
                    f"--engine {name} does not apply to {model.name}: {error}; take --engine auto "
                    "or dense"
                ) from error
            reasons.append(str(error))
        else:
            skipped = f"auto: {'; '.join(reasons)}" if reasons else ""
            engine.reason = engine.reason or skipped
            return engine if len(subject.variants) == 1 else VariedEngine(subject, engine)
    raise InputError(f"no engine applies to {model.name}: {'; '.join(reasons)}")


__all__ = [
    "Cut",
    "DenseEngine",
    "EngineChoice",
    "NotApplicable",
    "Subject",
    "SweepEngine",
    "choose_engine",
    "engines",
    "failing",
    "not_worth",
    "numerics",
    "saving",
    "weigh",
]

"""What was found out about the network of a sweep: how it has to be run, and by which engine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from elsewhere.models import Conduct
from elsewhere.models.restoring import stamp
from elsewhere.recording.engines import Subject, SweepEngine, choose_engine
from elsewhere.recording.subject import watch


class Findings:
    """What was found out about the network of a sweep, once, when it is first asked for.

    `wanted` is the engine that is asked for, `aside` the reasons for which ``auto`` takes whole
    canvases: what is found of one network has the same list, so that an engine that failed in one
    sweep of it is not tried in the next. `begun` names the engine that began what is gone on with.
    """

    def __init__(
        self,
        subject: Subject,
        wanted: str,
        aside: list[str] | None = None,
        begun: Sequence[str] = (),
    ) -> None:
        self.subject, self._wanted = subject, wanted
        self.aside: list[str] = [] if aside is None else aside
        self._begun = begun
        self._engine: SweepEngine | None = None
        self._stamp = stamp(subject.model.module)

    def of(self, subject: Subject, wanted: str) -> Findings:
        """Return the findings for something else; of the same network, how it has to be run."""
        if subject.model is not self.subject.model:
            return Findings(subject, wanted, list(self.aside))
        other = Findings(subject, wanted, self.aside)
        if "conduct" in vars(self):
            other.conduct = self.conduct
        return other

    def at(self, subject: Subject) -> Findings:
        """Return the findings for another reference; an engine that serves there goes with them."""
        other = self.of(subject, self._wanted)
        if self._engine is not None:
            other._engine = self.choice.at(subject)
        return other

    def current(self) -> Findings:
        """Return these findings, or none yet where the network has been changed since."""
        unchanged = stamp(self.subject.model.module) == self._stamp
        if unchanged:
            return self
        return Findings(self.subject, self._wanted, self.aside, self._begun)

    def go_on_by(self, name: str) -> None:
        """Take the engine of that name, where ``auto`` has the choice and it applies."""
        self._begun = (name,)
        if self._engine is not None and self._engine.name != name:
            self._engine = None

    @cached_property
    def conduct(self) -> Conduct:
        """How the network has to be run, and its behaviour."""
        return watch(self.subject)

    @property
    def choice(self) -> SweepEngine:
        """The engine that runs the sweep."""
        left = self.aside and self._wanted == "auto"
        if self._engine is None or (left and self._engine.name != "dense"):
            self._engine = None  # what it holds is let go of
            self._engine = choose_engine(
                self.subject, self.conduct, self._wanted, self.aside, self._begun
            )
        return self._engine

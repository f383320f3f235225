"""What all sessions share to make a Turn: who thinks, who speaks, who draws."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from gpuserver.domain import FaceCrop, Hearing, LanguageModel, MouthJob, Voice
from gpuserver.pipeline.standing import StandingNotices


class MouthPainter(Protocol):
    """musetalk.renderer.Renderer, as far as a Turn needs it."""

    def submit(self, job: MouthJob) -> Future[FaceCrop | None]:
        """The crop to come; the future is cancelled if the job's generation is."""
        ...


@dataclass(frozen=True, slots=True)
class Studio:
    """The parts are started and closed by whoever puts the studio together."""

    language_model: LanguageModel
    voice: Voice
    engine: Hearing
    renderer: MouthPainter
    standing: StandingNotices = field(default_factory=StandingNotices)

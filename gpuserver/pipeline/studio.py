"""What all sessions share to make a Turn: who thinks, who speaks, who draws."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Protocol

from gpuserver.domain import FaceCrop, Hearing, LanguageModel, MouthJob, Voice
from gpuserver.pipeline.report import TurnRecord
from gpuserver.pipeline.standing import StandingNotices


class MouthPainter(Protocol):
    """musetalk.renderer.Renderer, as far as a Turn needs it."""

    def submit(self, job: MouthJob) -> Future[FaceCrop | None]:
        """The crop to come; the future is cancelled if the job's generation is."""
        ...


def unheeded(_record: TurnRecord) -> None:
    """Nobody wants to know how Turns end."""


@dataclass(frozen=True, slots=True)
class Studio:
    """The parts are started and closed by whoever puts the studio together.

    on_turn: told of every Turn that is over. hearing: runs listeners that block; None: the event loop's own threads.
    """

    language_model: LanguageModel
    voice: Voice
    engine: Hearing
    renderer: MouthPainter
    standing: StandingNotices = field(default_factory=StandingNotices)
    on_turn: Callable[[TurnRecord], None] = unheeded
    hearing: Executor | None = None

"""What the media server counts besides requests: sessions, Turns, pictures and sound, mouths. docs/operations.md lists every name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client import Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gpuserver.media.mouths import Mouths
from gpuserver.musetalk.rendering.ladder import Step
from gpuserver.musetalk.rendering.render_stats import RendererStats
from gpuserver.pipeline.report import TurnRecord
from gpuserver.pipeline.sessions import SessionRegistry
from gpuserver.web.metrics import Metrics

STAGE_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 30, 60)
SILENCE_SECONDS = (0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.2, 0.5, 1)
LATE_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.2, 0.5)
BATCH_SIZES = (1, 2, 4, 8, 16, 32)


class TurnMetrics:
    """Counts Turns as they end; note() is a Studio's on_turn."""

    def __init__(self, metrics: Metrics):
        registry = metrics.registry
        self._problems = metrics.problems
        self._turns = Counter("gpuserver_turns", "Answers that are over.", ["outcome", "aloud"], registry=registry)
        self._stages = Histogram(
            "gpuserver_turn_stage_seconds", "From the question to a stage.", ["stage"], buckets=STAGE_SECONDS, registry=registry
        )
        self._silence = Histogram(
            "gpuserver_interrupt_silence_seconds", "From an interruption to silence.", buckets=SILENCE_SECONDS, registry=registry
        )

    def note(self, record: TurnRecord) -> None:
        self._turns.labels(record.outcome, "yes" if record.aloud else "no").inc()
        for stage, milliseconds in record.marks.items():
            self._stages.labels(stage).observe(milliseconds / 1000)
        if record.silent_after is not None:
            self._silence.observe(record.silent_after / 1000)
        for slug in record.problems:
            self._problems.labels(slug).inc()


class StreamMetrics:
    """Counts what leaves to browsers, by its kind: "video" or "audio"."""

    def __init__(self, metrics: Metrics):
        registry = metrics.registry
        self._lateness = Histogram(
            "gpuserver_frame_lateness_seconds",
            "How late pictures (video) and pieces of 20 ms (audio) were begun to be sent.",
            ["kind"],
            buckets=LATE_SECONDS,
            registry=registry,
        )
        self._left_out = Counter("gpuserver_frames_left_out", "Never sent, for they were too late.", ["kind"], registry=registry)
        for kind in ("video", "audio"):
            self._left_out.labels(kind)

    def note(self, kind: str, lateness: float, left_out: int) -> None:
        """A piece is sent, `lateness` seconds after it was due; so many before it were left out."""
        self._lateness.labels(kind).observe(lateness)
        if left_out:
            self._left_out.labels(kind).inc(left_out)


class Reporting(Protocol):
    """A part that says how it is, and under `fallback` what stands in for what."""

    def status(self) -> dict[str, object]: ...


class MediaCollector(Collector):
    """Reads sessions, renderer and fallbacks at the moment of the request."""

    def __init__(self, sessions: SessionRegistry, most_sessions: int, mouths: Mouths, *, voice: Reporting, language_model: Reporting):
        self._sessions = sessions
        self._most_sessions = most_sessions
        self._renderer = mouths.renderer
        self._reporting: dict[str, Reporting] = {"voice": voice, "language_model": language_model, "engine": mouths}

    def collect(self) -> Iterator[Metric]:
        yield from self._session_metrics()
        yield from _renderer_metrics(self._renderer.stats())
        fallback = GaugeMetricFamily("gpuserver_fallback", "1: something else than what was wanted does the work.", labels=["component"])
        for name, part in self._reporting.items():
            fallback.add_metric([name], float(bool(part.status().get("fallback"))))
        yield fallback

    def _session_metrics(self) -> Iterator[Metric]:
        sessions = self._sessions.list()
        yield GaugeMetricFamily("gpuserver_sessions", "Session slots in use.", self._sessions.taken)
        yield GaugeMetricFamily("gpuserver_sessions_max", "Session slots.", self._most_sessions)
        yield GaugeMetricFamily("gpuserver_sessions_connected", "Sessions that somebody sees.", sum(each.connected for each in sessions))
        yield GaugeMetricFamily(
            "gpuserver_sessions_speaking", "Sessions with an answer on its way.", sum(each.speaking for each in sessions)
        )
        waiting = sum(each.lines_waiting for each in sessions)
        yield GaugeMetricFamily("gpuserver_questions_waiting", "Questions whose answer has not begun.", waiting)
        yield CounterMetricFamily("gpuserver_sessions_begun", "Sessions that began.", self._sessions.created)
        ended = CounterMetricFamily("gpuserver_sessions_ended", "Sessions that are over.", labels=["reason"])
        for reason, count in self._sessions.ended.items():
            ended.add_metric([reason], count)
        yield ended


def _renderer_metrics(stats: RendererStats) -> Iterator[Metric]:
    counters = {
        "drawn": (stats.drawn, "Mouths that were drawn."),
        "lent": (stats.lent, "Frames that carried on the mouth of the one before."),
        "stale": (stats.stale, "Mouths that were drawn for an answer that was interrupted meanwhile."),
        "late": (stats.late, "Mouths that were drawn after they were due."),
        "lateness_seconds": (stats.lateness_sum, "Sum of how late the late ones were."),
        "not_drawn": (stats.not_drawn, "Frames with the source's own mouth, for the network gave no usable one."),
        "failed": (stats.failed, "Frames with the source's own mouth, for an engine raised an error."),
    }
    for name, (value, help_text) in counters.items():
        yield CounterMetricFamily(f"gpuserver_mouths_{name}", help_text, value)
    yield GaugeMetricFamily("gpuserver_mouths_queued", "Mouths that wait to be drawn.", stats.queued)
    yield GaugeMetricFamily("gpuserver_mouths_lateness_max_seconds", "The latest mouth since the process began.", stats.lateness_max)
    yield CounterMetricFamily("gpuserver_renderer_devices_lost", "GPUs that were lost.", stats.devices_lost)
    yield CounterMetricFamily("gpuserver_renderer_step_changes", "Steps taken on the ladder of overload.", stats.step_changes)
    step = GaugeMetricFamily("gpuserver_renderer_step", "1 at the step that is taken.", labels=["step"])
    for each in Step:
        step.add_metric([each], float(each == stats.step))
    yield step
    yield _batches(stats.batch_sizes)
    speed = GaugeMetricFamily("gpuserver_engine_frames_per_second", "Mouths per second of work, as measured.", labels=["engine", "place"])
    memory = CounterMetricFamily(
        "gpuserver_engine_out_of_memory", "Batches that were halved for want of memory.", labels=["engine", "place"]
    )
    for place, engine in enumerate(stats.engines):
        memory.add_metric([engine.name, str(place)], engine.out_of_memory)
        if engine.frames_per_second is not None:
            speed.add_metric([engine.name, str(place)], engine.frames_per_second)
    yield from (speed, memory)


def _batches(sizes: Mapping[int, int]) -> Metric:
    """size -> batches as a histogram."""
    buckets = [(f"{edge}.0", sum(count for size, count in sizes.items() if size <= edge)) for edge in BATCH_SIZES]
    total = sum(sizes.values())
    mouths = sum(size * count for size, count in sizes.items())
    family = HistogramMetricFamily("gpuserver_batch_size", "Mouths per batch.")
    family.add_metric([], [*buckets, ("+Inf", total)], mouths)
    return family

"""GET /metrics of all processes: what the router and every worker count, told apart by the label `worker`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

import structlog
from prometheus_client import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from gpuserver.errors import Unavailable
from gpuserver.media_router.fleet import Fleet, Worker
from gpuserver.media_router.renderers import Renderers

LABEL = "worker"
ROUTER = "router"
ANSWER_SECONDS = 2.0

# What a renderer process says of itself, by its names.
OF_RENDERERS: Mapping[str, tuple[type[GaugeMetricFamily | CounterMetricFamily], str]] = {
    "restarts": (CounterMetricFamily, "Times that the renderer process was started again."),
    "workers": (GaugeMetricFamily, "Workers that it paints for."),
    "frames_per_second": (GaugeMetricFamily, "Faces per second of work, as measured."),
    "queued": (GaugeMetricFamily, "Faces that wait."),
    "painted": (CounterMetricFamily, "Faces that it painted, for all workers."),
    "batches": (CounterMetricFamily, "Batches of them."),
    "out_of_memory": (CounterMetricFamily, "Batches that were halved for want of memory."),
}

log = structlog.get_logger(__name__)


class Labelled(Collector):
    """Families of several processes as one."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}

    def add(self, worker: str, families: Iterable[Metric]) -> None:
        """What this worker counts."""
        for each in families:
            family = self._families.setdefault(each.name, Metric(each.name, each.documentation, each.type))
            family.samples += [sample._replace(labels={LABEL: worker, **sample.labels}) for sample in each.samples]

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client's encoders."""
        return iter(self._families.values())


def with_workers(fleet: Fleet, renderers: Renderers) -> Callable[[Collector], Awaitable[Collector]]:
    """What adds the workers' metrics, and what the renderers say, to the router's own. A worker that does not answer is left out."""

    async def gather(own: Collector) -> Collector:
        labelled = Labelled()
        labelled.add(ROUTER, text_string_to_metric_families(generate_latest(own).decode()))
        labelled.add(ROUTER, renderer_metrics(await renderers.statuses()))
        serving = fleet.serving
        for worker, families in zip(serving, await asyncio.gather(*map(_metrics_of, serving)), strict=True):
            labelled.add(str(worker.number), families)
        return labelled

    return gather


def renderer_metrics(statuses: Sequence[Mapping[str, object]]) -> Iterator[Metric]:
    """One sample per renderer process; none of what one that is away would have said."""
    if not statuses:
        return
    ready = GaugeMetricFamily("gpuserver_renderer_ready", "1: the renderer process paints.", labels=["renderer"])
    for status in statuses:
        ready.add_metric([str(status["renderer"])], float(status["state"] == "ready"))
    yield ready
    for name, (kind, help_text) in OF_RENDERERS.items():
        family = kind(f"gpuserver_renderer_{name}", help_text, labels=["renderer"])
        for status in statuses:
            if isinstance(value := status.get(name), int | float):
                family.add_metric([str(status["renderer"])], value)
        yield family


async def _metrics_of(worker: Worker) -> list[Metric]:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await worker.client.ask("GET", "/metrics")
        return list(text_string_to_metric_families(answer.body.decode()))
    except (Unavailable, TimeoutError, ValueError) as error:
        log.warning("no_metrics", worker=worker.number, reason=type(error).__name__)
        return []

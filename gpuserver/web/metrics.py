"""GET /metrics: what this process counts, for Prometheus. docs/operations.md lists every name.

Each application has a registry of its own, which goes with it. Labels take their values from small fixed sets: route templates, problem
types, statuses; never paths, ids or what somebody wrote.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gpuserver import __version__
from gpuserver.web.keys import local_or_key
from gpuserver.web.problem import PROBLEM
from gpuserver.web.rate_limit import uncounted

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
Gather = Callable[[Collector], Awaitable[Collector]]
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NO_ROUTE = "none"  # an address or a method that nobody serves
OTHER = "other"
CLIENT_GONE = 499


class Metrics:
    """The registry of one application, and what every application counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        Info("gpuserver", "Which version runs.", registry=self.registry).info({"version": __version__})
        self.requests = Counter(
            "gpuserver_http_requests", "Requests that were answered.", ["method", "route", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "gpuserver_http_request_seconds",
            "From a request's headers to the end of its answer; WebSockets and event streams are left out.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.in_progress = Gauge("gpuserver_http_requests_in_progress", "Requests that are being answered.", registry=self.registry)
        self.problems = Counter("gpuserver_problems", "Errors by problem type, over HTTP and in answers.", ["type"], registry=self.registry)
        self.queues = Gauge("gpuserver_queue_depth", "What waits or is being worked on.", ["queue"], registry=self.registry)


METRICS = web.AppKey("metrics", Metrics)


def add_metrics(app: web.Application, *, gather: Gather | None = None) -> Metrics:
    """Count what `app` does and serve it at /metrics, to this machine and to who has a key. Before the first route.

    gather: adds what other processes count, at every request.
    """
    metrics = app[METRICS] = Metrics()
    app.middlewares.insert(0, _counting(metrics))

    @local_or_key
    @uncounted
    async def show(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        shown = metrics.registry if gather is None else await gather(metrics.registry)
        return web.Response(body=encode(shown), headers={"Content-Type": content_type})

    app.router.add_get("/metrics", show)
    return metrics


def watch_queue(app: web.Application, name: str, depth: Callable[[], float]) -> None:
    """Show how long a queue is at the moment of the request. Without effect on an application that has no metrics."""
    if METRICS in app:
        app[METRICS].queues.labels(name).set_function(depth)


def _counting(metrics: Metrics) -> Middleware:
    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.monotonic()
        response: web.StreamResponse | None = None
        status = CLIENT_GONE
        try:
            with metrics.in_progress.track_inprogress():
                response = await handler(request)
            status = response.status
        except web.HTTPException as error:  # redirects and 304 are raised
            status = error.status
            raise
        finally:
            route = _route(request)
            metrics.requests.labels(request.method if request.method in METHODS else OTHER, route, str(status)).inc()
            if not _lasts(response):
                metrics.request_seconds.labels(route).observe(time.monotonic() - started)
            if response is not None and PROBLEM in response:
                metrics.problems.labels(response[PROBLEM]).inc()
        return response

    return count


def _route(request: web.Request) -> str:
    """The template, such as /v1/avatars/{avatar_id}."""
    resource = request.match_info.route.resource
    return NO_ROUTE if resource is None else resource.canonical


def _lasts(response: web.StreamResponse | None) -> bool:
    """Whether it takes as long as somebody listens."""
    return isinstance(response, web.WebSocketResponse) or (response is not None and response.content_type == "text/event-stream")

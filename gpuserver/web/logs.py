"""Logs: structlog and the standard library's loggers through one handler, as text for a person or JSON for a machine.

What a student says and secrets are never logged; lines carry ids instead (structlog's contextvars). What other services answer is not
logged either, for it may repeat what they were sent: /health and the client's notice have it.
"""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import Processor

from gpuserver.config import Settings

OURS = "gpuserver"


def configure_logging(settings: Settings) -> None:
    """Send all logs of this process to stderr. Called once by each process's main."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=_renderers(as_json), foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    level: int = getattr(logging, settings.log_level.upper())
    # Lines of other libraries below a warning name every request, candidate and packet, with tokens and what a student says.
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger(OURS).setLevel(level)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _renderers(as_json: bool) -> list[Processor]:
    strip = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if as_json:
        # Local variables stay out of tracebacks: they hold secrets and what students say.
        exceptions = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
        return [strip, exceptions, structlog.processors.JSONRenderer(default=str)]
    colors = sys.stderr.isatty()
    return [strip, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]

"""What a check is, and how many of them are run: at once, each within its time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from gpuserver.errors import GpuserverError
from gpuserver.wire import Diagnosis, Finding

CHECK_SECONDS = 15.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Check:
    """name: what its findings begin with. needed: whether the server is of no use without it."""

    name: str
    run: Callable[[], Awaitable[Sequence[Finding]]]
    needed: bool = False


async def diagnose(checks: Sequence[Check]) -> Diagnosis:
    """Run all checks; their findings come in the order of the checks."""
    lists = await asyncio.gather(*(_findings(check) for check in checks))
    findings = [finding for each in lists for finding in each]
    return Diagnosis(healthy=all(finding.status != "fail" for finding in findings), findings=findings)


async def _findings(check: Check) -> Sequence[Finding]:
    """A check that takes too long or breaks is a finding as well."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check.run()
    except TimeoutError:
        return [
            failed(check.name, f"No result within {CHECK_SECONDS:.0f} s.", "Try again when the machine is less busy.", needed=check.needed)
        ]
    except GpuserverError as error:
        return [failed(check.name, error.detail, error.advice, needed=check.needed)]
    except Exception as error:
        log.exception("check_broke", check=check.name)
        return [failed(check.name, f"The check itself failed: {error!r}.", "Report this; the log has the details.", needed=check.needed)]


def ok(name: str, detail: str, advice: str | None = None) -> Finding:
    return Finding(name=name, status="ok", detail=detail, advice=advice)


def off(name: str, detail: str) -> Finding:
    return Finding(name=name, status="off", detail=detail)


def failed(name: str, detail: str, advice: str, *, needed: bool) -> Finding:
    return Finding(name=name, status="fail" if needed else "warning", detail=detail, advice=advice)

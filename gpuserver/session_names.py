"""A session's id and number tell which media worker has it, so that nobody keeps a table of who is where.

With several workers the router in front of them names the sessions. A worker that is started anew knows none of the old names.
"""

from __future__ import annotations

import re
import secrets

from gpuserver.player_wire import LAST_NUMBER

MOST_WORKERS = 64
NAME_HEADER = "X-Session-Id"  # from the router to a worker, with a call that makes a session

_OF_WORKER = re.compile(r"w(?P<worker>[1-9][0-9]?)-[A-Za-z0-9_-]{22}")


def new_session_id(worker: int | None = None) -> str:
    """An id that cannot be guessed. worker: 1 to MOST_WORKERS; None where there is one media process."""
    token = secrets.token_urlsafe(16)
    return token if worker is None else f"w{worker}-{token}"


def worker_of_id(session_id: str) -> int | None:
    """Which worker has or had the session; None for an id that names none."""
    match = _OF_WORKER.fullmatch(session_id)
    return int(match["worker"]) if match and int(match["worker"]) <= MOST_WORKERS else None


def new_number(worker: int | None = None) -> int:
    """A number from 1 to LAST_NUMBER that cannot be guessed, for LiveTalking's clients; what it leaves over 64 is the worker."""
    if worker is None:
        return secrets.randbelow(LAST_NUMBER) + 1
    rounds = (LAST_NUMBER + 1) // MOST_WORKERS
    return (secrets.randbelow(rounds - 1) + 1) * MOST_WORKERS + worker - 1


def worker_of_number(number: int) -> int:
    """Which worker has or had the session, if a worker gave it this number."""
    return number % MOST_WORKERS + 1

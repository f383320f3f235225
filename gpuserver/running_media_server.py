"""Asks the media server that runs on this machine, from the command line."""

from __future__ import annotations

import http.client
from contextlib import closing
from urllib.parse import urlsplit

from gpuserver.config import Settings
from gpuserver.web.auth import INTERNAL_HEADER, known_secret


def ask(settings: Settings, path: str, seconds: float) -> tuple[int, bytes]:
    """Status and body of GET path. seconds: of silence, at most. Raises OSError, http.client.HTTPException."""
    # Who only asks makes no secret: the file of another account would keep the servers from starting.
    secret = known_secret(settings)
    address = urlsplit(settings.media_url)
    with closing(http.client.HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=seconds)) as connection:
        connection.request("GET", path, headers={} if secret is None else {INTERNAL_HEADER: secret})
        answer = connection.getresponse()
        return answer.status, answer.read()

"""A media server that hangs, instead of dying, is noticed by who asks the management API."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
from running_server import running_server

NOTICED_SECONDS = 3.0  # what operators and load balancers are promised


def test_health_is_503_within_3_seconds_while_the_media_server_is_stopped(tmp_path: Path) -> None:
    with (
        running_server(tmp_path, demo=False) as server,
        httpx.Client(base_url=server.url, timeout=NOTICED_SECONDS, trust_env=False) as http,
    ):
        media = server.process_id("media")
        os.kill(media, signal.SIGSTOP)
        try:
            health = http.get("/health")
            assert (health.status_code, health.json()["components"]["media_server"]["status"]) == (503, "down")
            assert "gpuserver_http_requests_total" in http.get("/metrics").text  # its own part goes on
        finally:
            os.kill(media, signal.SIGCONT)
        assert http.get("/health").status_code == 200

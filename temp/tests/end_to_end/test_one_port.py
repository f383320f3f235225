"""A real browser on the one UDP port, and what the page says about the network."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import httpx
import pytest
from aioice.ice import get_host_addresses
from face_page import IN_CALL, FacePage
from network_path import NetworkPath
from playwright.sync_api import Browser, expect
from running_server import RunningServer, free_ports, running_server

IN_USE = """async () => {
  const report = await window.connections.at(-1).getStats();
  const pairs = [...report.values()].filter((each) => each.type === "candidate-pair" && each.nominated && each.bytesReceived);
  return pairs.map(({ remoteCandidateId }) => report.get(remoteCandidateId)?.port);
}"""
FRAMES = """async () => {
  const report = await window.connections.at(-1).getStats();
  return [...report.values()].find(({ type, kind }) => type === "inbound-rtp" && kind === "video")?.framesDecoded ?? 0;
}"""
RECOVERY_MS = 30_000
KEEP_CONNECTIONS = """
window.connections = [];
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...configuration) { super(...configuration); window.connections.push(this); }
  async setRemoteDescription({ type, sdp }) {
    return super.setRemoteDescription({ type, sdp: window.through ? await window.through(sdp) : sdp });
  }
  async addIceCandidate(candidate) {
    return window.through ? null : super.addIceCandidate(candidate);
  }
};
"""


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("one port"), WEBRTC_UDP_PORT=str(port), TTS="espeak") as server:
        yield server


def test_two_browsers_call_over_the_one_port(browser: Browser, server: RunningServer, port: int) -> None:
    assert httpx.get(f"{server.url}/api/webrtc/config").json()["portRange"] == [port, port]
    visits = [FacePage(browser, server.url, locale="en-GB") for _ in range(2)]
    for visit in visits:
        visit.page.add_init_script(KEEP_CONNECTIONS)
        visit.page.reload()
        visit.call("demo")
    for visit in visits:
        assert set(visit.page.evaluate(IN_USE)) == {port}
    network = httpx.get(f"{server.media_url}/health").json()["components"]["peers"]["network"]
    assert (network["udp_port"], network["forged"]) == (port, 0)
    for visit in visits:
        visit.hang_up()
        assert visit.complaints == []
        visit.close()


def test_a_browser_that_moves_goes_on_and_one_that_is_cut_off_comes_back_by_itself(browser: Browser, server: RunningServer) -> None:
    visit = FacePage(browser, server.url, locale="en-GB", bypass_csp=True)  # so that conditions can be waited for
    with network_path() as (path, do):
        visit.page.expose_function("through", path.through)
        visit.page.add_init_script(KEEP_CONNECTIONS)
        visit.page.reload()
        visit.call("demo")
        session_id = visit.session_id

        do(path.move())
        seen = visit.page.evaluate(FRAMES)
        visit.page.wait_for_function(f"async () => await ({FRAMES})() > {seen + 50}", timeout=RECOVERY_MS)
        assert visit.page.evaluate("window.connections.length") == 1

        visit.page.evaluate("window.through = null")  # the next connection finds another way
        path.open = False
        visit.page.wait_for_function("window.connections.length === 2", timeout=RECOVERY_MS)
        visit.page.wait_for_selector(IN_CALL, timeout=RECOVERY_MS)
        visit.page.wait_for_function(f"async () => await ({FRAMES})() > 10", timeout=RECOVERY_MS)
        assert visit.session_id == session_id
    visit.hang_up()
    visit.close()


@contextlib.contextmanager
def network_path() -> Iterator[tuple[NetworkPath, Callable[[Coroutine[Any, Any, None]], None]]]:
    """A NetworkPath that runs beside the browser, and what awaits something of it."""
    loop = asyncio.new_event_loop()
    running = threading.Thread(target=loop.run_forever)
    running.start()

    def do(what: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(what, loop).result(5)

    path = NetworkPath(get_host_addresses(use_ipv4=True, use_ipv6=False)[0])
    try:
        do(path.__aenter__())
        try:
            yield path, do
        finally:
            do(path.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        running.join()
        loop.close()


def test_the_page_diagnoses_the_server(browser: Browser, server: RunningServer, port: int) -> None:
    visit = FacePage(browser, server.url, locale="en-GB")
    visit.page.click("#lobby [popovertarget=settings]")
    visit.page.click("#diagnosis-open")
    expect(visit.page.locator("#diagnosis-summary")).to_have_text("Everything that is needed works.", timeout=20_000)
    said = visit.page.locator("#diagnosis-list").inner_text()
    assert f"UDP {port} is all that browsers send to." in said
    assert "docker run -p" in said
    assert visit.complaints == []
    visit.close()
    assert json.loads(httpx.get(f"{server.url}/v1/diagnosis").text)["healthy"]

"""Chromium's restartIce(), as after a change of networks: the call goes on over another way."""

from __future__ import annotations

from face_page import FacePage
from playwright.sync_api import Browser, Response
from running_server import RunningServer

INBOUND = """globalThis.inbound = async () => {
  const reports = [...(await observedConnection.getStats()).values()];
  const [sound, picture] = ["audio", "video"].map((kind) => reports.find((each) => each.type === "inbound-rtp" && each.kind === kind));
  const { selectedCandidatePairChanges: ways } = reports.find((each) => each.type === "transport");
  return { ways, streams: [sound.ssrc, picture.ssrc], samples: sound.totalSamplesReceived, frames: picture.framesDecoded };
}"""
# The page itself trickles the candidates, as it does for its first offer.
RESTART = """async ([session, token]) => {
  globalThis.states = [];
  observedConnection.addEventListener("connectionstatechange", () => states.push(observedConnection.connectionState));
  observedConnection.restartIce();
  await observedConnection.setLocalDescription();
  const headers = { "Content-Type": "application/json", Authorization: `Bearer ${token}` };
  const body = JSON.stringify(observedConnection.localDescription);
  const answer = await fetch(`/v1/sessions/${session}/offer`, { method: "POST", headers, body });
  if (!answer.ok) throw new Error(await answer.text());
  await observedConnection.setRemoteDescription(await answer.json());
}"""
# Resolves when another way is used and 50 pictures and a second of sound have come over it.
GOES_ON = """async ([ways, limitMs]) => {
  const end = performance.now() + limitMs;
  let changed = null;
  while (performance.now() < end) {
    const now = await inbound();
    if (!changed && now.ways > ways) changed = now;
    if (changed && now.frames >= changed.frames + 50 && now.samples >= changed.samples + 48000) return now;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`nothing comes over the new way: ${JSON.stringify([changed, await inbound()])}`);
}"""
LIMIT_MS = 15_000


def test_sound_and_pictures_go_on_after_an_ice_restart(browser: Browser, shared_server: RunningServer) -> None:
    visit = FacePage(browser, shared_server.url)
    with visit.page.expect_response(_creates_session) as created:
        visit.call("demo")
    session = created.value.json()
    visit.page.evaluate(INBOUND)
    for _ in range(2):
        before = visit.page.evaluate("inbound()")
        visit.page.evaluate(RESTART, [session["session_id"], session["engine_token"]])
        after = visit.page.evaluate(GOES_ON, [before["ways"], LIMIT_MS])
        assert after["streams"] == before["streams"], "it is the same connection, not a new one"
        assert visit.page.evaluate("states") == [], "it has been connected all the while"
    visit.hang_up()
    visit.close()


def _creates_session(response: Response) -> bool:
    return response.request.method == "POST" and response.url.endswith("/v1/sessions") and response.status == 201

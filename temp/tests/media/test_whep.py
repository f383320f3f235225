"""WHEP: SDP in, SDP out; a player that trickles, ends, or is made to hear something."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from receiver import Receiver

from gpuserver.errors import InvalidInput
from gpuserver.media.sdp_fragment import read_fragment
from gpuserver.media.whep import ice_server_link
from gpuserver.wire import IceServer

if TYPE_CHECKING:
    from media_server_rig import MediaServer

pytest_plugins = ("media_fixtures",)

MakeMedia = Callable[..., "Awaitable[MediaServer]"]
KEY = "k" * 32
SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


class Player:
    """What a WHEP player does."""

    def __init__(self, media: MediaServer, receiver: Receiver, *, key: str | None = None):
        self.http = media.client
        self.receiver = receiver
        self.address = ""
        self.headers: Mapping[str, str] = {}
        self.offered = ""
        self._key = {"Authorization": f"Bearer {key}"} if key else {}

    async def play(self, avatar_id: str = "demo") -> Player:
        async def negotiate(sdp: str) -> str:
            self.offered = sdp
            answer = await self.http.post(f"/whep/{avatar_id}", data=sdp, headers=SDP | self._key)
            assert (answer.status, answer.content_type) == (201, "application/sdp"), await answer.text()
            self.address, self.headers = answer.headers["Location"], answer.headers
            return await answer.text()

        await self.receiver.connect(negotiate)
        return self

    async def post(self, what: str, **body: Any) -> int:
        return (await self.http.post(f"{self.address}/{what}", json=body, headers=self._key)).status

    async def hears_something(self) -> None:
        await self.receiver.until(lambda: any(sound.audible for sound in self.receiver.sounds))


async def test_a_player_sees_the_avatar_and_hears_what_a_back_end_has_it_say(media: MediaServer) -> None:
    async with Receiver() as receiver:
        player = await Player(media, receiver).play()
        await receiver.until(lambda: len(receiver.pictures) > 5)
        assert await player.post("say", text="One two three.") == 200
        await player.hears_something()
        assert await player.post("interrupt") == 204
        assert await player.post("ask", text="What is it?") == 200
        heard = len(receiver.sounds)
        await receiver.until(lambda: any(sound.audible for sound in receiver.sounds[heard + 10 :]))
        assert media.model.questions[0][-1].content == "What is it?"


async def test_a_player_that_deletes_its_session_is_disconnected_and_its_address_is_gone(media: MediaServer) -> None:
    async with Receiver() as receiver:
        player = await Player(media, receiver).play()
        assert (await player.http.delete(player.address)).status == 200
        await receiver.until(lambda: receiver.state == "closed")
        gone = await player.http.delete(player.address)
        assert (gone.status, gone.content_type) == (404, "application/problem+json")


async def test_a_player_that_goes_without_a_word_leaves_no_session(make_media: MakeMedia) -> None:
    media = await make_media(max_sessions=1)
    async with Receiver() as receiver:
        player = await Player(media, receiver).play()
        full = await player.http.post("/whep/demo", data=player.offered, headers=SDP)
        assert (full.status, "Retry-After" in full.headers) == (429, True)
    async with asyncio.timeout(10):
        while await player.post("interrupt") == 204:
            pass
    async with Receiver() as receiver:
        await Player(media, receiver).play()


async def test_trickled_candidates_are_taken(media: MediaServer) -> None:
    async with Receiver() as receiver:
        player = await Player(media, receiver).play()
        assert player.headers["Accept-Patch"] == FRAGMENT["Content-Type"]
        lines = [line for line in player.offered.splitlines() if line.startswith(("a=ice-ufrag", "a=ice-pwd", "a=candidate"))]
        body = "\r\n".join([*lines, "m=audio 9 UDP/TLS/RTP/SAVPF 0", "a=mid:0", *lines, "a=end-of-candidates", ""])
        for more in ({}, {"If-Match": "*"}, {"If-Match": player.headers["ETag"]}):
            assert (await player.http.patch(player.address, data=body, headers=FRAGMENT | more)).status == 204


async def test_an_ice_restart_and_a_fragment_for_another_session_are_refused(media: MediaServer) -> None:
    async with Receiver() as receiver:
        player = await Player(media, receiver).play()
        restart = "a=ice-ufrag:other\r\na=ice-pwd:otherotherotherotherother\r\n"
        assert (await player.http.patch(player.address, data=restart, headers=FRAGMENT)).status == 422
        stale = await player.http.patch(player.address, data=restart, headers=FRAGMENT | {"If-Match": '"other"'})
        assert (stale.status, stale.content_type) == (412, "application/problem+json")
        assert (await player.http.patch(player.address, json={})).status == 415


async def test_what_is_no_offer_is_a_problem_and_takes_no_session(make_media: MakeMedia) -> None:
    media = await make_media(max_sessions=1)
    async with Receiver() as receiver:
        offer = await receiver.offer()
        refused = [
            ("/whep/demo", "v=0", SDP, 400),
            ("/whep/demo", "", SDP, 400),
            ("/whep/demo", b"\xff", SDP, 400),
            ("/whep/demo", "x" * 70_000, SDP, 413),
            ("/whep/demo", offer, {"Content-Type": "text/plain"}, 415),
            ("/whep/nobody", offer, SDP, 404),
            ("/whep/no%20body", offer, SDP, 404),
        ]
        for path, data, headers, status in refused:
            answer = await media.client.post(path, data=data, headers=headers)
            assert (answer.status, answer.content_type) == (status, "application/problem+json")
    async with Receiver() as receiver:
        await Player(media, receiver).play()


async def test_with_api_keys_playing_and_speaking_need_one_and_leaving_does_not(make_media: MakeMedia) -> None:
    media = await make_media(api_keys=(KEY,))
    async with Receiver() as receiver:
        assert (await media.client.post("/whep/demo", data=await receiver.offer(), headers=SDP)).status == 401
    async with Receiver() as receiver:
        player = await Player(media, receiver, key=KEY).play()
        assert (await media.client.post(f"{player.address}/say", json={"text": "One."})).status == 401
        assert await player.post("say", text="One.") == 200
        assert (await media.client.delete(player.address)).status == 200


def test_a_player_learns_of_the_servers_it_may_need() -> None:
    assert ice_server_link(IceServer(urls=["stun:a:1"])) == '<stun:a:1>; rel="ice-server"'
    turn = ice_server_link(IceServer(urls=["turn:a:1"], username="u", credential="p"))
    assert turn == '<turn:a:1>; rel="ice-server"; username="u"; credential="p"; credential-type="password"'


@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from(["a=ice-ufrag:x", "a=mid:0", "a=candidate:1 1 udp 1 10.0.0.1 9 typ host"])).map("\r\n".join)
)
def test_any_text_is_a_fragment_or_refused(text: str) -> None:
    try:
        fragment = read_fragment(text)
    except InvalidInput:
        return
    assert len(fragment.candidates) <= 64

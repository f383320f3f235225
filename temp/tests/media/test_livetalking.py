"""LiveTalking's HTTP API, called as its stock pages call it: what they send is taken, what they look at is there."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import av
import numpy as np
import pytest
from receiver import Receiver
from sound_files import encoded

from gpuserver.web import sound_form

if TYPE_CHECKING:
    from media_server_rig import MediaServer, StartedFakeVoice

pytest_plugins = ("media_fixtures",)

MakeMedia = Callable[..., "Awaitable[MediaServer]"]
KEY = "k" * 32


class LiveTalkingClient:
    """What a stock page does: it knows its sessionid and looks at `code`."""

    def __init__(self, media: MediaServer, receiver: Receiver):
        self.sessionid = 0
        self.receiver = receiver
        self._http = media.client

    async def connect(self, **more: Any) -> LiveTalkingClient:
        async def negotiate(sdp: str) -> str:
            answer = await self.post("offer", sdp=sdp, type="offer", **more)
            assert answer.get("code", 0) == 0, answer
            assert answer["type"] == "answer"
            self.sessionid = answer["sessionid"]
            return str(answer["sdp"])

        await self.receiver.connect(negotiate)
        return self

    async def post(self, name: str, **body: Any) -> dict[str, Any]:
        response = await self._http.post(f"/{name}", json={"sessionid": self.sessionid, **body})
        assert response.status == 200
        answer = await response.json()
        assert isinstance(answer, dict)
        return answer

    async def send_audio(self, content: bytes, *, sessionid: object = None) -> dict[str, Any]:
        form = aiohttp.FormData()
        form.add_field("sessionid", str(self.sessionid if sessionid is None else sessionid))
        form.add_field("file", io.BytesIO(content), filename="sound.wav")
        response = await self._http.post("/humanaudio", data=form)
        assert response.status == 200
        answer = await response.json()
        assert isinstance(answer, dict)
        return answer

    async def hear_out(self) -> None:
        """Ask until nothing is being said, as pages do."""
        async with asyncio.timeout(20):
            while (await self.post("is_speaking"))["data"]:
                await self._next_sound(len(self.receiver.sounds))

    async def _next_sound(self, count: int) -> None:
        await self.receiver.until(lambda: len(self.receiver.sounds) > count)


async def until_ended(client: LiveTalkingClient) -> None:
    """Ask until the session is gone."""
    async with asyncio.timeout(10):
        while (await client.post("is_speaking"))["code"] == 0:
            pass


@pytest.fixture
def voice() -> StartedFakeVoice:
    from media_server_rig import StartedFakeVoice

    return StartedFakeVoice()


def audible_seconds(receiver: Receiver) -> float:
    return sum(sound.audible for sound in receiver.sounds) * 0.02


async def test_a_page_connects_has_a_text_said_and_hears_it(media: MediaServer) -> None:
    async with Receiver() as receiver:
        client = await LiveTalkingClient(media, receiver).connect()
        assert 0 < client.sessionid < 2**53
        assert await client.post("human", text="One two three.", type="echo", interrupt=True) == {"code": 0, "msg": "ok"}
        assert (await client.post("is_speaking"))["data"] is True
        await receiver.until(lambda: audible_seconds(receiver) > 0.4)
        await client.hear_out()
        assert receiver.pictures


async def test_texts_queue_unless_they_interrupt(make_media: MakeMedia, voice: StartedFakeVoice) -> None:
    media = await make_media(voice=voice)
    async with Receiver() as receiver:
        client = await LiveTalkingClient(media, receiver).connect()
        for text in ("One.", "Two."):
            await client.post("human", text=text, type="echo")
        await client.hear_out()
        assert voice.sentences == ["One.", "Two."]


async def test_a_question_is_answered_by_the_language_model(media: MediaServer) -> None:
    async with Receiver() as receiver:
        client = await LiveTalkingClient(media, receiver).connect()
        await client.post("human", text="What is it?", type="chat", interrupt=True)
        await client.hear_out()
        assert media.model.questions[0][-1].content == "What is it?"


async def test_an_interruption_ends_what_is_said_and_what_waits(media: MediaServer) -> None:
    async with Receiver() as receiver:
        client = await LiveTalkingClient(media, receiver).connect()
        for _ in range(2):
            await client.post("human", text="word " * 200, type="echo")
        await receiver.until(lambda: audible_seconds(receiver) > 0.1)
        assert (await client.post("interrupt_talk"))["code"] == 0
        await client.hear_out()


async def test_a_sound_file_is_said_after_what_is_being_said(make_media: MakeMedia, voice: StartedFakeVoice) -> None:
    media = await make_media(voice=voice)
    async with Receiver() as receiver:
        client = await LiveTalkingClient(media, receiver).connect()
        assert await client.send_audio(encoded(1.0, "mp3", "libmp3lame")) == {"code": 0, "msg": "ok"}
        await receiver.until(lambda: audible_seconds(receiver) > 0.85)
        await client.hear_out()
        assert audible_seconds(receiver) < 1.15
        assert voice.sentences == []


async def test_a_file_that_is_no_sound_is_refused_in_plain_words(media: MediaServer) -> None:
    async with Receiver() as receiver:
        client = await LiveTalkingClient(media, receiver).connect()
        for content in (b"", b"no sound at all" * 100):
            answer = await client.send_audio(content)
            assert answer["code"] == -1
            assert "sound" in answer["msg"]


async def test_more_sound_files_at_once_than_there_is_room_for_are_refused_before_they_are_received(
    make_media: MakeMedia, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound_form, "MOST_AT_ONCE", 0)
    media = await make_media()
    async with Receiver() as receiver:
        client = await LiveTalkingClient(media, receiver).connect()
        answer = await client.send_audio(encoded(0.1))
        assert answer["code"] == -1
        assert "sounds are being received" in answer["msg"]


async def test_a_sound_file_that_is_too_large_is_refused_in_plain_words(media: MediaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound_form, "MOST_AUDIO_BYTES", 1024**2)
    async with Receiver() as receiver:
        client = await LiveTalkingClient(media, receiver).connect()
        answer = await client.send_audio(bytes(1024**2 + 1))
        assert answer["code"] == -1
        assert "more than 1 MB" in answer["msg"]


async def test_a_recording_has_picture_and_sound_and_can_be_fetched(media: MediaServer, tmp_path: Path) -> None:
    async with Receiver() as receiver:
        client = await LiveTalkingClient(media, receiver).connect()
        assert (await client.post("record", type="start_record"))["code"] == 0
        await client.post("human", text="One two three.", type="echo")
        await receiver.until(lambda: audible_seconds(receiver) > 0.4)
        ended = await client.post("record", type="end_record")
        assert (ended["code"], ended["data"]["url"]) == (0, f"/record/{client.sessionid}.mp4")
    film = tmp_path / "film.mp4"
    for address in (f"/record/{client.sessionid}", ended["data"]["url"]):
        answer = await media.client.get(address)
        assert (answer.status, answer.content_type) == (200, "video/mp4")
        film.write_bytes(await answer.read())
    with av.open(str(film)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        assert len(sound) / 48_000 == pytest.approx(ended["data"]["seconds"], abs=0.1)
        assert np.abs(sound).max() > 0.05
        assert container.streams.video[0].frames == round(ended["data"]["seconds"] * 25)


async def test_a_recording_that_was_not_begun_cannot_be_ended_or_fetched(media: MediaServer) -> None:
    async with Receiver() as receiver:
        client = await LiveTalkingClient(media, receiver).connect()
        assert (await client.post("record", type="end_record"))["code"] == -1
        assert (await media.client.get(f"/record/{client.sessionid}.mp4")).status == 404


async def test_an_action_number_is_taken_and_said_to_change_nothing(media: MediaServer) -> None:
    async with Receiver() as receiver:
        client = await LiveTalkingClient(media, receiver).connect()
        answer = await client.post("set_audiotype", audiotype=2, reinit=False)
        assert answer["code"] == 0
        assert "changes nothing" in answer["data"]


async def test_newer_pages_send_the_sessionid_as_text(media: MediaServer) -> None:
    async with Receiver() as receiver:
        client = await LiveTalkingClient(media, receiver).connect(avatar="demo", refaudio="")
        assert await client.post("is_speaking", sessionid=str(client.sessionid)) == {"code": 0, "msg": "ok", "data": False}


async def test_the_session_ends_when_its_page_is_closed(make_media: MakeMedia) -> None:
    media = await make_media(max_sessions=1)
    async with Receiver() as receiver:
        client = await LiveTalkingClient(media, receiver).connect()
        async with Receiver() as second:
            refused = await client.post("offer", sdp=await second.offer(), type="offer")
            assert refused["code"] == -1
            assert "slots are taken" in refused["msg"]
    await until_ended(client)
    async with Receiver() as receiver:
        await LiveTalkingClient(media, receiver).connect()


CALLS: dict[str, dict[str, Any]] = {
    "human": {"text": "Hello.", "type": "echo"},
    "interrupt_talk": {},
    "is_speaking": {},
    "record": {"type": "start_record"},
    "set_audiotype": {"audiotype": 1},
}


async def test_an_unknown_session_is_an_error_that_pages_understand(media: MediaServer) -> None:
    async with Receiver() as receiver:
        client = LiveTalkingClient(media, receiver)
        for name, body in CALLS.items():
            for sessionid in (123_456, "123456", "nonsense", -1, 2**53, None):
                answer = await client.post(name, **body | {"sessionid": sessionid})
                assert answer["code"] == -1
                assert "session" in answer["msg"]


async def test_a_sound_for_an_unknown_session_is_refused(media: MediaServer) -> None:
    async with Receiver() as receiver:
        client = LiveTalkingClient(media, receiver)
        assert (await client.send_audio(encoded(0.1), sessionid=5))["code"] == -1
        assert (await client.send_audio(encoded(0.1), sessionid="x"))["code"] == -1


async def test_an_offer_that_cannot_be_answered_takes_no_session(make_media: MakeMedia) -> None:
    media = await make_media(max_sessions=1)
    async with Receiver() as receiver:
        client = LiveTalkingClient(media, receiver)
        for body in ({"sdp": "v=0", "type": "offer"}, {"sdp": "x" * 70_000, "type": "offer"}, {"type": "offer"}, {}):
            assert (await client.post("offer", **body))["code"] == -1
        await client.connect()


async def test_an_unknown_avatar_is_an_error_that_pages_understand(media: MediaServer) -> None:
    async with Receiver() as receiver:
        answer = await LiveTalkingClient(media, receiver).post("offer", sdp=await receiver.offer(), type="offer", avatar="nobody")
    assert answer["code"] == -1
    assert "nobody" in answer["msg"]


async def test_with_api_keys_a_page_gives_its_key_in_the_address(make_media: MakeMedia) -> None:
    media = await make_media(api_keys=(KEY,))
    for name in ("human", "humanaudio", "offer", "record"):
        assert (await media.client.post(f"/{name}", json={})).status == 401
        assert (await media.client.post(f"/{name}?api_key={KEY}", json={})).status == 200
    assert (await media.client.get("/record/5.mp4")).status == 401
    assert (await media.client.get(f"/record/5.mp4?api_key={KEY}")).status == 404


@pytest.mark.parametrize(("management", "media_host", "status"), [("0.0.0.0", "127.0.0.1", 403), ("127.0.0.1", "0.0.0.0", 200)])
async def test_a_page_under_a_rebound_name_reaches_no_media_server_on_loopback(
    make_media: MakeMedia, management: str, media_host: str, status: int
) -> None:
    media = await make_media(management_api_host=management, media_host=media_host, allow_insecure=True)
    assert (await media.client.post("/human", json={}, headers={"Host": "rebound.example:8615"})).status == status

"""The running product with what hostile calls need so that some of them succeed: avatars, sessions, jobs, players, films."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from receiver import Receiver
from running_server import REPOSITORY, RunningServer, running_server
from scripted_model import MODELS, scripted_model

KEY = "a-key-for-the-fuzzer-0123456789abcdef"
SECRET = "between-the-two-processes"
FACE = REPOSITORY / "gpuserver/musetalk/assets/portrait.png"
PLAYER_SECONDS = 3.0  # a player whose peer never comes is given up after some seconds; a new one is made before that
KEYS = {"X-API-Key": KEY}
INTERNAL = {"X-Internal-Secret": SECRET}


@dataclass
class World:
    """One of the two servers and what lives in it. prefix: before the paths of LiveTalking and WHEP, "" on the media server itself."""

    server: RunningServer
    url: str
    prefix: str
    sdp: str
    numbers: Iterator[int] = field(default_factory=count)
    _client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=60, trust_env=False))
    _session: dict[str, Any] | None = None
    _player: tuple[float, str] = (-PLAYER_SECONDS, "")
    _talker: tuple[float, int] = (-PLAYER_SECONDS, 0)
    _film: int | None = None
    _job: str | None = None

    def session(self, *, to_be_ended: bool = False) -> dict[str, Any]:
        """A session that lives, as POST /v1/sessions answered it."""
        if to_be_ended or self._session is None or not self._lives(self._session):
            body = {"tutor_id": 7, "student_id": 8, "avatar_id": "demo"}
            answer = self._post("/v1/sessions", json=body, headers=KEYS | INTERNAL)
            if to_be_ended:
                return answer
            self._session = answer
        return self._session

    def player(self) -> str:
        """The id of a WHEP session."""
        made, session_id = self._player
        if time.monotonic() - made > PLAYER_SECONDS:
            answer = self._client.post(
                f"{self.url}{self.prefix}/whep/demo", content=self.sdp, headers=KEYS | {"Content-Type": "application/sdp"}
            )
            assert answer.status_code == 201, answer.text
            session_id = answer.headers["Location"].rpartition("/")[2]
            self._player = (time.monotonic(), session_id)
        return session_id

    def forget_player(self) -> None:
        """The next one is new."""
        self._player = (-PLAYER_SECONDS, "")

    def talker(self) -> int:
        """The number of a LiveTalking session."""
        made, number = self._talker
        if time.monotonic() - made > PLAYER_SECONDS:
            number = int(self._post(f"{self.prefix}/offer", json={"sdp": self.sdp, "type": "offer", "avatar": "demo"})["sessionid"])
            self._talker = (time.monotonic(), number)
        return number

    def film(self) -> int:
        """The number of a session that has been recorded."""
        if self._film is None:
            self._film = asyncio.run(_record(self.server.media_url))
        return self._film

    def job(self, *, to_be_cancelled: bool = False) -> str:
        """The id of a job."""
        if self._job is None or to_be_cancelled:
            with FACE.open("rb") as face:
                answer = self._post(
                    "/v1/avatars/upload",
                    data={"avatar_id": self.new_name()},
                    files={"video_file": face},
                    headers=KEYS | {"Prefer": "respond-async"},
                )
            if to_be_cancelled:
                return str(answer["job_id"])
            self._job = str(answer["job_id"])
        return self._job

    def new_name(self) -> str:
        """Of an avatar that is not there."""
        return f"new-{'g' if self.prefix else 'm'}{next(self.numbers)}"

    def spare_avatar(self) -> str:
        """One that may be deleted: the demo avatar's files under another name."""
        name = f"spare-{'g' if self.prefix else 'm'}{next(self.numbers)}"
        avatars = self.server.folder / "data/avatars"
        draft = avatars.parent / name
        shutil.copytree(avatars / "demo", draft, copy_function=os.link)
        info = json.loads((draft / "avatar.json").read_text())
        (draft / "avatar.json").unlink()
        (draft / "avatar.json").write_text(json.dumps({**info, "avatar_id": name}))
        draft.rename(avatars / name)
        return name

    def close(self) -> None:
        self._client.close()

    def _post(self, path: str, **parts: Any) -> dict[str, Any]:
        answer = self._client.post(self.url + path, **({"headers": KEYS} | parts))
        assert answer.status_code in {200, 201, 202}, answer.text
        body = answer.json()
        assert isinstance(body, dict)
        return body

    def _lives(self, session: dict[str, Any]) -> bool:
        return self._client.get(f"{self.url}/v1/sessions/{session['session_id']}", headers=KEYS | INTERNAL).status_code == 200


@contextmanager
def worlds(folder: Path) -> Iterator[dict[str, World]]:
    """Both servers of one product: "management" and "media". Limits on the number of calls are off, a key is needed."""
    videos = folder / "videos"
    videos.mkdir()
    shutil.copy(FACE, videos / "face.png")
    settings: dict[str, Any] = {
        "API_KEYS": KEY,
        "INTERNAL_SECRET": SECRET,
        "VIDEO_DIRS": str(videos),
        "MAX_SESSIONS": "400",
        "SESSION_TIMEOUT_SECONDS": "30",
        "LLM": "openai",
        "LLM_DEFAULT_MODEL": MODELS[0],
        "LOG_LEVEL": "warning",
    }
    with scripted_model({}) as model, running_server(folder, OPENAI_BASE_URL=model.url, **settings) as server:
        sdp = asyncio.run(_offer())
        made = {
            "management": World(server, server.url, "/api/avatar/webrtc", sdp),
            "media": World(server, server.media_url, "", sdp),
        }
        try:
            yield made
        finally:
            for world in made.values():
                world.close()


async def _offer() -> str:
    async with Receiver() as receiver:
        return await receiver.offer()


async def _record(url: str) -> int:
    """Watch a LiveTalking session, record some of it, and give its number."""
    async with httpx.AsyncClient(base_url=url, headers=KEYS, trust_env=False, timeout=30) as client, Receiver() as receiver:
        numbers = []

        async def negotiate(sdp: str) -> str:
            answer = (await client.post("/offer", json={"sdp": sdp, "type": "offer", "avatar": "demo"})).json()
            numbers.append(answer["sessionid"])
            return str(answer["sdp"])

        async def record(kind: str) -> dict[str, Any]:
            body: dict[str, Any] = (await client.post("/record", json={"sessionid": numbers[0], "type": kind})).json()
            return body

        await receiver.connect(negotiate)
        assert (await record("start_record"))["code"] == 0
        seen = len(receiver.pictures)
        await receiver.until(lambda: len(receiver.pictures) > seen + 25, within=30)
        ended = await record("end_record")
        assert ended["code"] == 0, ended
        return int(numbers[0])

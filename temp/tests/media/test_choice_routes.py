"""GET /v1/voices and /v1/models of the media server: what a session may name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from media_server_rig import MediaServer

pytest_plugins = ("media_fixtures",)


async def test_the_voices_of_this_server_are_listed(media: MediaServer) -> None:
    answer = await (await media.client.get("/v1/voices")).json()
    assert answer == {"total": 1, "voices": [{"id": "fake", "name": "fake", "language": "en", "available": True}]}


async def test_the_models_are_listed_with_the_default_marked(media: MediaServer) -> None:
    answer = await (await media.client.get("/v1/models")).json()
    assert answer == {"total": 2, "models": [{"id": "fake-llm", "default": True}, {"id": "another", "default": False}]}

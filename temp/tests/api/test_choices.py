"""GET /v1/voices and /v1/models of the management API."""

from __future__ import annotations

from api_pair import Pair


async def test_the_voices_are_those_of_the_media_server(pair: Pair) -> None:
    answer = await pair.client.get("/v1/voices")
    assert answer.status == 200
    assert (await answer.json())["voices"][0]["id"] == "hibari"


async def test_without_the_media_server_there_is_no_list_but_a_time_to_ask_again(pair: Pair) -> None:
    await pair.media_server.close()
    for path in ("/v1/voices", "/v1/models"):
        answer = await pair.client.get(path)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "2")

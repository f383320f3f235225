"""GET /health of the management API."""

from __future__ import annotations

from api_pair import Pair


async def test_health_names_both_processes_and_their_components(pair: Pair) -> None:
    pair.manager.add("demo")
    await pair.new_session()
    answer = await pair.client.get("/health")
    health = await answer.json()
    assert (answer.status, health["status"], health["active_sessions"], health["max_sessions"]) == (200, "healthy", 1, 10)
    assert health["components"]["media_server"] == {"status": "ok"}
    assert health["components"]["avatars"] == {"status": "ok", "count": 1}
    assert health["components"]["voice"]["voice"] == "hibari"


async def test_health_is_503_while_the_media_server_is_down(pair: Pair) -> None:
    await pair.media_server.close()
    answer = await pair.client.get("/health")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
    assert (await answer.json())["components"]["media_server"]["status"] == "down"


async def test_health_is_degraded_while_a_media_worker_is_and_503_while_all_are(pair: Pair) -> None:
    pair.media.status = "degraded"
    answer = await pair.client.get("/health")
    assert (answer.status, (await answer.json())["status"]) == (200, "degraded")
    pair.media.status = "unhealthy"
    answer = await pair.client.get("/health")
    assert (answer.status, (await answer.json())["status"]) == (503, "unhealthy")


async def test_health_answers_whoever_asks_under_whatever_name(pair: Pair) -> None:
    assert (await pair.client.get("/health", headers={"Host": "load-balancer.example", "Origin": "https://evil.example"})).status == 200


async def test_the_page_and_its_security_headers_are_there(pair: Pair) -> None:
    answer = await pair.client.get("/")
    assert (answer.status, answer.content_type) == (200, "text/html")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert (await pair.client.get("/health")).headers["Cache-Control"] == "no-store"


async def test_unknown_addresses_and_methods_are_problems(pair: Pair) -> None:
    assert (await pair.client.get("/v2/avatars")).status == 404
    answer = await pair.client.put("/v1/avatars")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD,POST")

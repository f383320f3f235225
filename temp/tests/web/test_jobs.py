"""Avatars that are made while nobody waits: jobs are followed, cancelled, bounded, and forgotten."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from aiohttp import FormData, web
from aiohttp.test_utils import TestClient
from fake_avatar_manager import QUALITY, FakeAvatarManager
from pytest_aiohttp.plugin import AiohttpClient
from structlog.testing import capture_logs

from gpuserver.config import Settings
from gpuserver.errors import AvatarExists, Cancelled, JobNotFound, NoUsableFace, TooManyJobs, Unreadable
from gpuserver.web.avatar_routes import PREPARATIONS_AT_ONCE, add_avatar_routes
from gpuserver.web.bounded_pool import MOST_QUEUED, BoundedPool
from gpuserver.web.jobs import MOST_ENDED, REMEMBERED_SECONDS, Job, Jobs
from gpuserver.web.problem import problem_middleware
from gpuserver.wire import AvatarCreated

Client = TestClient[web.Request, web.Application]
ASYNC = {"Prefer": "respond-async"}
MADE = AvatarCreated(avatar_id="a", avatar_path="/a", message="made")


class NoUsers:
    """Fake AvatarUsers: nobody shows anything."""

    async def showing(self, avatar_id: str) -> list[str]:
        return []

    async def end(self, session_ids: list[str]) -> None:
        pass


@pytest.fixture
def manager(settings: Settings) -> FakeAvatarManager:
    manager = FakeAvatarManager(settings)
    manager.start()
    return manager


@pytest.fixture
async def client(aiohttp_client: AiohttpClient, manager: FakeAvatarManager) -> Client:
    app = web.Application(middlewares=[problem_middleware])
    add_avatar_routes(app, manager, NoUsers(), max_upload_mb=1)
    return await aiohttp_client(app)


def body(avatar_id: str) -> dict[str, object]:
    return {"avatar_id": avatar_id, "video_path": "/tmp/test.mp4"}


def form(avatar_id: str) -> FormData:
    form = FormData({"avatar_id": avatar_id})
    form.add_field("video_file", b"video", filename="a.mp4")
    return form


async def events(client: Client, location: str) -> list[dict[str, Any]]:
    """All events of a job, to its end."""
    async with client.get(f"{location}/events") as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        lines = (await answer.text()).splitlines()
    assert [line for line in lines if line.startswith("event")] == ["event: job"] * sum(line.startswith("data") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data")]


# ---------------------------------------------------------------- over HTTP


@pytest.mark.parametrize("way", ["path", "upload"])
async def test_a_job_tells_how_far_it_is_and_ends_with_the_avatar(client: Client, manager: FakeAvatarManager, way: str) -> None:
    manager.seconds = 0.05
    if way == "path":
        answer = await client.post("/v1/avatars", json=body("a1"), headers=ASYNC)
    else:
        answer = await client.post("/v1/avatars/upload", data=form("a1"), headers={"Prefer": "wait=5, respond-async"})
    job = await answer.json()
    assert (answer.status, answer.headers["Location"]) == (202, f"/v1/jobs/{job['job_id']}")
    assert (job["avatar_id"], job["result"], job["error"]) == ("a1", None, None)
    told = await events(client, answer.headers["Location"])
    parts = [event["progress"] for event in told]
    assert parts == sorted(parts)
    assert {"analysed", "done"} <= {event["stage"] for event in told}
    last = told[-1]
    assert (last["state"], last["progress"], last["result"]["avatar_id"]) == ("done", 1.0, "a1")
    assert last["report"] == QUALITY.model_dump()
    assert await (await client.get(answer.headers["Location"])).json() == last
    assert manager.ids() == ["a1"]
    assert list(manager.uploads_dir.iterdir()) == []
    assert (await client.delete(answer.headers["Location"])).status == 409  # the avatar is there: nothing was cancelled


async def test_a_duplicate_is_refused_at_once(client: Client, manager: FakeAvatarManager) -> None:
    manager.add("a1")
    assert (await client.post("/v1/avatars", json=body("a1"), headers=ASYNC)).status == 409
    assert (await client.post("/v1/avatars/upload", data=form("a1"), headers=ASYNC)).status == 409
    assert list(manager.uploads_dir.iterdir()) == []


async def test_cancelling_ends_the_work_and_leaves_nothing(client: Client, manager: FakeAvatarManager) -> None:
    manager.seconds = 60.0
    answer = await client.post("/v1/avatars/upload", data=form("a1"), headers=ASYNC)
    location = answer.headers["Location"]
    following = asyncio.create_task(events(client, location))
    assert await asyncio.to_thread(manager.started.wait, 10)
    assert (await client.delete(location)).status == 204
    assert manager.cancelled.is_set()
    last = (await following)[-1]
    assert (last["state"], last["error"]["status"]) == ("cancelled", 499)
    assert manager.avatars == {}
    assert list(manager.uploads_dir.iterdir()) == []
    assert (await client.delete(location)).status == 204


async def test_a_full_queue_is_a_429_that_says_when_to_come_back(client: Client, manager: FakeAvatarManager) -> None:
    manager.seconds = 60.0
    for number in range(PREPARATIONS_AT_ONCE):
        answer = await client.post("/v1/avatars", json=body(f"running{number}"), headers=ASYNC)
        while (await (await client.get(answer.headers["Location"])).json())["state"] != "running":
            pass
    for number in range(MOST_QUEUED):
        assert (await client.post("/v1/avatars", json=body(f"queued{number}"), headers=ASYNC)).status == 202
    refused = await client.post("/v1/avatars/upload", data=form("more"), headers=ASYNC)
    assert (refused.status, refused.headers["Retry-After"]) == (429, "15")
    assert (await client.post("/v1/avatars", json=body("more"), headers=ASYNC)).status == 429
    for path in ("/v1/avatars", "/v1/avatars/upload"):  # nobody waits without bound either; the body is not looked at
        waiting = await client.post(path, data=b"no body that could be read")
        assert (waiting.status, waiting.headers["Retry-After"]) == (429, "15")
    await client.close()  # all of them end with the server
    assert manager.avatars == {}


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/events"), ("DELETE", "")])
async def test_an_unknown_job_is_a_404(client: Client, method: str, path: str) -> None:
    answer = await client.request(method, f"/v1/jobs/none{path}")
    assert (answer.status, (await answer.json())["type"]) == (404, "urn:gpuserver:problem:job-not-found")


async def test_a_listener_that_goes_away_is_let_go(client: Client, manager: FakeAvatarManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuserver.web.job_routes.HEARTBEAT_SECONDS", 0.02)
    manager.seconds = 60.0
    location = (await client.post("/v1/avatars", json=body("a1"), headers=ASYNC)).headers["Location"]
    answer = await client.get(f"{location}/events")
    while (await answer.content.readline()) != b": ping\r\n":
        pass
    answer.close()
    telling = [task for task in asyncio.all_tasks() if task.get_coro().__qualname__ == "_tell"]  # type: ignore[union-attr]
    assert len(telling) == 1
    await asyncio.wait_for(asyncio.wait(telling), 10)
    assert (await client.delete(location)).status == 204


# ---------------------------------------------------------------- Jobs


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with BoundedPool(1, "job") as executor:
        yield executor


@pytest.fixture
async def jobs(executor: ThreadPoolExecutor) -> AsyncIterator[Jobs]:
    jobs = Jobs(executor)
    yield jobs
    await jobs.aclose()


async def end_of(job: Job) -> tuple[str, int | None]:
    states = [state async for state in job.states()]
    error = states[-1].error
    return states[-1].state, None if error is None else int(str(error["status"]))


async def test_failures_keep_their_problem(jobs: Jobs) -> None:
    def fail(error: Exception) -> AvatarCreated:
        raise error

    with capture_logs() as logs:
        assert await end_of(jobs.start("a", lambda job: MADE)) == ("done", None)
        assert await end_of(jobs.start("b", lambda job: fail(Unreadable("no video")))) == ("failed", 415)
    said = {"event": "job_refused", "avatar_id": "b", "problem": "unreadable-video", "log_level": "info"}
    assert [line for line in logs if line["event"].startswith("job")] == [said]
    assert await end_of(jobs.start("a", lambda job: fail(NoUsableFace("no")))) == ("failed", 422)
    assert await end_of(jobs.start("a", lambda job: fail(AvatarExists("there")))) == ("failed", 409)
    assert await end_of(jobs.start("a", lambda job: fail(Cancelled("gone")))) == ("cancelled", 499)
    assert await end_of(jobs.start("a", lambda job: fail(KeyError("secret")))) == ("failed", 500)


async def test_a_queued_job_is_cancelled_without_having_run(jobs: Jobs) -> None:
    cleaned: list[str] = []

    def wait(job: Job) -> AvatarCreated:
        job.cancel.wait(60)
        return MADE

    first = jobs.start("a", wait, cleanup=lambda: cleaned.append("a"))
    second = jobs.start("b", lambda job: pytest.fail("it ran"), cleanup=lambda: cleaned.append("b"))
    await jobs.cancel(second.job_id)
    assert second.state.state == "cancelled"
    first.cancel.set()
    assert await end_of(first) == ("done", None)
    assert cleaned == ["b", "a"]


async def test_slow_listeners_see_the_end(jobs: Jobs) -> None:
    go = threading.Event()

    def work(job: Job) -> AvatarCreated:
        go.wait(10)
        for step in range(1000):
            job.progress("faces", step / 1000)
        return MADE

    job = jobs.start("a", work)
    seen = []
    async for state in job.states():
        seen.append(state)
        go.set()
        await asyncio.sleep(0.01)
    assert seen[-1].state == "done"
    assert len(seen) < 500


async def test_ended_jobs_are_forgotten_by_number_and_by_age(executor: ThreadPoolExecutor) -> None:
    now = 0.0
    jobs = Jobs(executor, lambda: now)
    made = [jobs.start("a", lambda job: MADE)]
    await end_of(made[0])
    for _ in range(MOST_ENDED):
        made.append(jobs.start("a", lambda job: MADE))
        await end_of(made[-1])
    with pytest.raises(JobNotFound):
        jobs.get(made[0].job_id)
    assert jobs.get(made[1].job_id) is made[1]
    now = REMEMBERED_SECONDS + 1
    with pytest.raises(JobNotFound):
        jobs.get(made[-1].job_id)
    await jobs.aclose()


async def test_a_job_that_is_turned_away_leaves_nothing() -> None:
    def wait(job: Job) -> AvatarCreated:
        job.cancel.wait(60)
        raise Cancelled("gone")

    with BoundedPool(1, "job", most_queued=1) as pool:
        jobs = Jobs(pool)
        jobs.start("a", wait)
        queued = jobs.start("b", wait)
        with pytest.raises(TooManyJobs):
            jobs.start("c", wait)
        await jobs.cancel(queued.job_id)
        jobs.start("d", wait)  # in the place of the cancelled one
        await jobs.aclose()

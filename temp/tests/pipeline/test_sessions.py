import asyncio

import pytest
from fakes import FakeAvatars, FakeEngine, FakeLanguageModel, FakeRenderer, FakeStage, FakeVoice
from virtual_time import in_virtual_time

from gpuserver.config import Settings
from gpuserver.domain import Avatar
from gpuserver.errors import AvatarDamaged, AvatarNotFound, Full, SessionNotFound, Unavailable
from gpuserver.messages import SessionLost
from gpuserver.musetalk.rendering.admission import HEADROOM, Admission
from gpuserver.pipeline.session import Session
from gpuserver.pipeline.sessions import SessionRegistry
from gpuserver.pipeline.studio import Studio
from gpuserver.wire import CreateSession

REQUEST = CreateSession(tutor_id="7", student_id="2")


class BrokenAvatars(FakeAvatars):
    """Every avatar's files are damaged."""

    def get(self, avatar_id: str) -> Avatar:
        raise AvatarDamaged("The files of the avatar are damaged.")


def registry(avatars: FakeAvatars | None = None, model: FakeLanguageModel | None = None, **settings: object) -> SessionRegistry:
    engine = FakeEngine()
    studio = Studio(model or FakeLanguageModel(), FakeVoice(), engine, FakeRenderer(engine))
    avatars = avatars or FakeAvatars()
    return SessionRegistry(Settings(_env_file=None, **settings), studio, avatars, avatars, lambda avatar: FakeStage())  # type: ignore[arg-type]


@in_virtual_time
async def test_fifty_simultaneous_creations_for_ten_slots_give_exactly_ten() -> None:
    sessions = registry(max_sessions=10)
    made = await asyncio.gather(*(sessions.create(REQUEST) for _ in range(50)), return_exceptions=True)
    assert sum(isinstance(each, Session) for each in made) == 10
    refused = [each for each in made if isinstance(each, Full)]
    assert len(refused) == 40
    assert all(each.status == 429 and each.retry_after for each in refused)
    assert sessions.taken == len(sessions.list()) == 10
    await sessions.aclose()


class SlowEngines:
    """28 mouths a second with some to spare: enough for two sessions that speak half of their time."""

    def capacity(self) -> float:
        return 28 / HEADROOM

    def shown(self) -> int:
        return 0


@in_virtual_time
async def test_more_sessions_than_the_engines_can_draw_are_refused_with_a_plain_reason() -> None:
    engine = FakeEngine()
    studio = Studio(FakeLanguageModel(), FakeVoice(), engine, FakeRenderer(engine))
    avatars, admission = FakeAvatars(), Admission(SlowEngines())
    settings = Settings(_env_file=None)
    sessions = SessionRegistry(settings, studio, avatars, avatars, lambda avatar: FakeStage(), admission=admission)
    first = await sessions.create(REQUEST)
    await sessions.create(REQUEST)
    with pytest.raises(Full, match="as many as can be drawn") as refused:
        await sessions.create(REQUEST)
    assert refused.value.retry_after
    await sessions.delete(first.session_id)
    await sessions.create(REQUEST)
    await sessions.aclose()


@in_virtual_time
async def test_a_freed_slot_can_be_taken_again() -> None:
    sessions = registry(max_sessions=1)
    first = await sessions.create(REQUEST)
    with pytest.raises(Full):
        await sessions.create(REQUEST)
    await sessions.delete(first.session_id)
    await sessions.create(REQUEST)
    await sessions.aclose()


@in_virtual_time
async def test_a_creation_that_fails_gives_its_slot_back() -> None:
    sessions = registry(BrokenAvatars(), max_sessions=1)
    for _ in range(3):
        with pytest.raises(AvatarDamaged):
            await sessions.create(REQUEST)
    assert sessions.taken == 0


@in_virtual_time
async def test_a_creation_that_is_cancelled_gives_its_slot_back() -> None:
    sessions = registry(max_sessions=1)
    creating = asyncio.create_task(sessions.create(REQUEST))
    await asyncio.sleep(0)
    assert sessions.taken == 1
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert sessions.taken == 0


@in_virtual_time
async def test_an_avatar_that_does_not_exist_is_said_with_those_that_do() -> None:
    with pytest.raises(AvatarNotFound, match="demo"):
        await registry().create(CreateSession(tutor_id="7", student_id="2", avatar_id="nobody"))


@in_virtual_time
async def test_a_session_shows_its_avatar_and_the_avatar_is_noted_as_used() -> None:
    avatars = FakeAvatars(("demo", "anna"))
    sessions = registry(avatars)
    session = await sessions.create(CreateSession(tutor_id="7", student_id="2", avatar_id="anna"))
    assert session.avatar_id == "anna"
    assert avatars.touched == 1
    assert sessions.showing("anna") == [session.session_id]
    assert sessions.showing("demo") == []
    await sessions.aclose()


@in_virtual_time
async def test_sessions_are_found_by_their_id_until_they_end() -> None:
    sessions = registry()
    first, second = await sessions.create(REQUEST), await sessions.create(REQUEST)
    assert sessions.list() == [first, second]
    assert sessions.get(first.session_id) is first
    await sessions.delete(first.session_id)
    assert sessions.list() == [second]
    for call in (sessions.get, sessions.delete):
        with pytest.raises(SessionNotFound):
            result = call(first.session_id)
            if result is not None:
                await result  # type: ignore[misc]
    await sessions.aclose()


@in_virtual_time
async def test_the_tutors_own_model_is_used() -> None:
    model = FakeLanguageModel()
    sessions = registry(model=model, tutor_models={"7": "tutor-seven"})
    session = await sessions.create(REQUEST)
    await session.ask("Why?")
    await asyncio.sleep(1)
    assert model.models == ["tutor-seven"]
    await sessions.aclose()


@in_virtual_time
async def test_an_idle_session_ends_and_says_why() -> None:
    sessions = registry(session_timeout_seconds=100)
    session = await sessions.create(REQUEST)
    subscription = session.subscribe()
    await asyncio.sleep(101)
    assert sessions.list() == []
    assert [event async for event in subscription] == [SessionLost(reason="idle")]


@in_virtual_time
async def test_the_end_of_the_registry_ends_every_session_and_admits_none() -> None:
    sessions = registry()
    subscriptions = [(await sessions.create(REQUEST)).subscribe() for _ in range(3)]
    await sessions.aclose()
    assert sessions.list() == []
    assert [[event async for event in each] for each in subscriptions] == [[SessionLost(reason="shutdown")]] * 3
    with pytest.raises(Unavailable):
        await sessions.create(REQUEST)


@in_virtual_time
async def test_a_session_ends_whole_although_whoever_deletes_it_is_cancelled() -> None:
    sessions = registry()
    session = await sessions.create(REQUEST)
    told = session.subscribe()
    deleting = asyncio.create_task(sessions.delete(session.session_id))
    await asyncio.sleep(0)
    deleting.cancel()
    assert [event async for event in told] == [SessionLost(reason="deleted")]
    with pytest.raises(asyncio.CancelledError):
        await deleting
    await sessions.aclose()


@in_virtual_time
async def test_the_end_of_the_registry_waits_for_sessions_that_are_ending() -> None:
    sessions = registry()
    session = await sessions.create(REQUEST)
    told = session.subscribe()
    deleting = asyncio.create_task(sessions.delete(session.session_id))
    await asyncio.sleep(0)
    await sessions.aclose()
    assert told.reason == "deleted"
    await deleting

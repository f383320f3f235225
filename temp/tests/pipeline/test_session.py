import asyncio

import pytest
from fakes import FakeEngine, FakeLanguageModel, FakeRenderer, FakeVoice, fake_avatar
from pydantic import ValidationError
from virtual_time import in_virtual_time, now

from gpuserver.domain import Message
from gpuserver.errors import InvalidInput, SessionNotFound, TooManyWaiting
from gpuserver.media.playout import Playout
from gpuserver.messages import (
    ErrorEvent,
    Interrupted,
    Notice,
    ServerMessage,
    SessionLost,
    SpeechEnded,
    SpeechStarted,
    TextComplete,
    TraceEvent,
)
from gpuserver.pipeline.audience import ARRIVAL_SECONDS
from gpuserver.pipeline.session import LINES_WAITING, SUBSCRIPTIONS, Session, SessionSettings
from gpuserver.pipeline.studio import Studio
from gpuserver.pipeline.turn import Turn
from gpuserver.wire import CreateSession, HistoryItem

AVATAR = fake_avatar()


class Classroom:
    """A session with fakes around it, a student who reads all events, and a peer whose tracks take every 20 ms."""

    def __init__(
        self,
        *,
        model: FakeLanguageModel | None = None,
        voice: FakeVoice | None = None,
        request: CreateSession | None = None,
        settings: SessionSettings | None = None,
    ):
        self.model = model or FakeLanguageModel()
        self.voice = voice or FakeVoice()
        engine = FakeEngine()
        self.stage = Playout(AVATAR, now)
        self.idle: list[Session] = []
        self.session = Session(
            request or CreateSession(tutor_id="1", student_id="2"),
            AVATAR,
            self.stage,
            Studio(self.model, self.voice, engine, FakeRenderer(engine, 0.003)),
            settings or SessionSettings("tutors-model", 3600.0),
            on_idle=self.idle.append,
        )
        self.events: list[ServerMessage] = []
        self.subscription = self.session.subscribe()
        self.tasks = [asyncio.create_task(self._read())]
        self.heard = 0  # audible pieces of 20 ms

    def connect(self) -> None:
        self.session.attach()
        self.tasks.append(asyncio.create_task(self._watch()))

    async def _read(self) -> None:
        async for event in self.subscription:
            self.events.append(event)

    async def _watch(self) -> None:
        piece = round((now() - self.stage.epoch) / 0.02) + 1
        while True:
            await asyncio.sleep(self.stage.epoch + piece * 0.02 - now())
            self.heard += bool(self.stage.sound(piece).any())
            piece += 1

    async def done(self, turn: int) -> None:
        """Wait for the Turn's trace, its last event."""
        async with asyncio.timeout(600):
            while not any(event.turn == turn for event in self.events if isinstance(event, TraceEvent)):  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        await self.session.aclose("deleted")
        await self.tasks[0]
        for task in self.tasks[1:]:
            task.cancel()

    def told(self, *kinds: type[ServerMessage]) -> list[ServerMessage]:
        return [event for event in self.events if isinstance(event, kinds)]


@in_virtual_time
async def test_a_question_is_answered_aloud_and_remembered() -> None:
    room = Classroom()
    room.connect()
    assert await room.session.ask("What is one?") == 1
    await room.done(1)
    await room.session.ask("And two?")
    await room.done(2)
    assert room.heard > 30
    assert [message.content for message in room.model.questions[1][1:]] == ["What is one?", "One two. Three four.", "And two?"]
    await room.close()


@in_virtual_time
async def test_a_turn_that_breaks_ends_with_an_error_and_the_next_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Classroom()
    room.connect()
    with monkeypatch.context() as broken:
        broken.setattr(Turn, "run", None)
        await room.session.ask("What is one?")
        await asyncio.sleep(0.1)
    assert [event.turn for event in room.events if isinstance(event, ErrorEvent)] == [1]
    assert not room.session.speaking
    await room.session.ask("And two?")
    await room.done(2)
    await room.close()


@in_virtual_time
async def test_the_history_of_the_request_is_remembered() -> None:
    request = CreateSession(
        tutor_id="1",
        student_id="2",
        system_prompt="Be kind.",
        history=[HistoryItem(role="user", content="I am Li."), HistoryItem(role="assistant", content="Hi.")],
    )
    room = Classroom(request=request)
    await room.session.ask("Who am I?")
    await room.done(1)
    assert room.model.questions[0] == [
        Message("system", "Be kind."),
        Message("user", "I am Li."),
        Message("assistant", "Hi."),
        Message("user", "Who am I?"),
    ]
    await room.close()


@in_virtual_time
@pytest.mark.parametrize(("wanted", "used"), [(None, "tutors-model"), ("my-model", "my-model")])
async def test_the_requests_model_wins_over_the_tutors(wanted: str | None, used: str) -> None:
    room = Classroom(request=CreateSession(tutor_id="1", student_id="2", model=wanted))
    await room.session.ask("Why?")
    await room.done(1)
    assert room.model.models == [used]
    await room.close()


@in_virtual_time
async def test_the_voice_speaks_as_fast_as_the_request_wants() -> None:
    room = Classroom(request=CreateSession(tutor_id="1", student_id="2", rate=0.75))
    room.connect()
    await room.session.ask("Why?")
    await room.done(1)
    assert set(room.voice.rates) == {0.75}
    await room.close()


@pytest.mark.parametrize("rate", [0.49, 2.01, float("nan"), "fast", True])
def test_a_rate_that_no_voice_can_speak_is_refused(rate: object) -> None:
    with pytest.raises(ValidationError, match="rate"):
        CreateSession.model_validate({"tutor_id": "1", "student_id": "2", "rate": rate})


@in_virtual_time
async def test_a_new_question_replaces_the_running_answer() -> None:
    room = Classroom(model=FakeLanguageModel("One two three. " * 30))
    room.connect()
    await room.session.ask("First?")
    await asyncio.sleep(1)
    await room.session.ask("Second?")
    await room.done(1)
    (interrupted,) = room.told(Interrupted)
    assert isinstance(interrupted, Interrupted)
    assert interrupted.turn == 1
    assert interrupted.ms <= 80
    remembered = room.model.questions[1]
    assert remembered[1] == Message("user", "First?")
    assert remembered[2].content.startswith("One two three.")
    assert len(remembered[2].content) < 40
    await room.close()


@in_virtual_time
async def test_no_event_of_a_replaced_answer_comes_after_its_trace() -> None:
    room = Classroom(model=FakeLanguageModel("One two three. " * 30, seconds_per_token=0.01))
    room.connect()
    for number in range(5):
        await room.session.ask(f"Question {number}?")
        await asyncio.sleep(0.1 * number)
    await room.session.interrupt()
    await room.done(5)
    for turn in range(1, 6):
        mine = [event for event in room.events if getattr(event, "turn", None) == turn]
        assert isinstance(mine[-1], TraceEvent | Interrupted)
        assert sum(isinstance(event, Interrupted) for event in mine) == 1
    turns = [event.turn for event in room.events if isinstance(event, TraceEvent)]
    assert turns == sorted(turns)
    await room.close()


@in_virtual_time
async def test_a_queued_line_waits_for_the_one_before() -> None:
    room = Classroom()
    room.connect()
    await room.session.say("One two three.", queue=True)
    await room.session.say("Four five.", queue=True)
    await room.done(2)
    assert [(type(event), event.turn) for event in room.events if isinstance(event, SpeechStarted | SpeechEnded)] == [
        (SpeechStarted, 1),
        (SpeechEnded, 1),
        (SpeechStarted, 2),
        (SpeechEnded, 2),
    ]
    await room.close()


@in_virtual_time
async def test_a_recording_is_played_after_what_is_being_said_and_not_remembered() -> None:
    room, recording = Classroom(), FakeVoice()
    room.connect()
    await room.session.say("One two three.")
    await room.session.play(recording, "Recording.", queue=True)
    await room.done(2)
    assert (room.voice.sentences, recording.sentences) == (["One two three."], ["Recording."])
    await room.session.ask("What was that?")
    await room.done(3)
    assert [message.content for message in room.model.questions[0][1:]] == ["One two three.", "What was that?"]
    await room.close()


@in_virtual_time
async def test_the_queue_is_bounded() -> None:
    room = Classroom()
    room.connect()
    await room.session.say("Now.")
    await asyncio.sleep(0.01)
    for _ in range(LINES_WAITING):
        await room.session.say("Later.", queue=True)
    with pytest.raises(TooManyWaiting):
        await room.session.say("Too late.", queue=True)
    await room.close()


@in_virtual_time
async def test_an_interruption_drops_what_waits_too() -> None:
    room = Classroom()
    room.connect()
    await room.session.say("One two three four five.")
    await room.session.say("Never said.", queue=True)
    await asyncio.sleep(0.3)
    await room.session.interrupt()
    await asyncio.sleep(5)
    assert {event.turn for event in room.events if isinstance(event, Interrupted)} == {1, 2}
    assert "Never said." not in room.voice.sentences
    assert not room.session.speaking
    await room.close()


@in_virtual_time
async def test_the_sound_ends_within_25_ms_of_an_interruption() -> None:
    room = Classroom(model=FakeLanguageModel("One two three. " * 30))
    room.connect()
    for number in range(1, 20):
        await room.session.ask("Why?")
        await asyncio.sleep(0.5 + 0.0137 * number)
        await room.session.interrupt()
        await room.done(number)
        heard = room.heard
        await asyncio.sleep(0.5)
        assert room.heard - heard <= 1  # the fade-out in the packet that was still to leave
    delays = [event.ms for event in room.events if isinstance(event, Interrupted)]
    assert len(delays) == 19
    assert max(delays) <= 25
    await room.close()


@in_virtual_time
async def test_an_interruption_of_nothing_changes_nothing() -> None:
    room = Classroom()
    await room.session.interrupt()
    assert room.told(Interrupted) == []
    await room.close()


@in_virtual_time
@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
async def test_an_empty_text_is_refused_and_interrupts_nothing(text: str) -> None:
    room = Classroom()
    room.connect()
    await room.session.say("One two three.")
    await asyncio.sleep(0.1)
    with pytest.raises(InvalidInput):
        await room.session.ask(text)
    await room.done(1)
    assert room.told(Interrupted) == []
    await room.close()


@in_virtual_time
async def test_without_a_picture_the_answer_is_text_only_and_says_so() -> None:
    room = Classroom()
    await room.session.ask("Why?")
    await room.done(1)
    assert room.voice.sentences == []
    assert [event.code for event in room.events if isinstance(event, Notice)] == ["no_picture"]
    assert TextComplete(turn=1, text="One two. Three four.") in room.events
    await room.close()


@in_virtual_time
async def test_when_the_last_peer_goes_the_answer_ends() -> None:
    room = Classroom(model=FakeLanguageModel("One two three. " * 30))
    room.connect()
    room.session.attach()  # a second connection, while the first is being replaced
    await room.session.ask("Why?")
    await asyncio.sleep(0.5)
    room.session.detach()
    await asyncio.sleep(0.5)
    assert room.session.connected
    assert room.session.speaking
    room.session.detach()
    await room.done(1)
    assert not room.session.connected
    assert len(room.told(Interrupted)) == 1
    await room.close()


@in_virtual_time
async def test_a_question_waits_for_a_peer_that_is_on_its_way() -> None:
    room = Classroom()
    room.session.expect_viewer()
    await room.session.ask("Why?")
    await asyncio.sleep(2)
    assert room.model.questions == []
    room.connect()
    room.session.expect_viewer_no_longer()
    await room.done(1)
    assert room.told(Notice) == []
    assert room.heard > 30
    await room.close()


@in_virtual_time
@pytest.mark.parametrize("gives_up", [True, False])
async def test_a_peer_that_gives_up_or_takes_too_long_is_not_waited_for(gives_up: bool) -> None:
    room = Classroom()
    room.session.expect_viewer()
    await room.session.ask("Why?")
    await asyncio.sleep(1)
    if gives_up:
        room.session.expect_viewer_no_longer()
    await room.done(1)
    assert [event.code for event in room.events if isinstance(event, Notice)] == ["no_picture"]
    assert now() == pytest.approx(1 if gives_up else ARRIVAL_SECONDS, abs=0.1)
    await room.session.ask("And now?")
    await room.done(2)
    assert now() == pytest.approx(1 if gives_up else ARRIVAL_SECONDS, abs=0.1)
    await room.close()


@in_virtual_time
async def test_a_question_that_waits_for_a_peer_can_be_replaced_and_taken_back() -> None:
    room = Classroom()
    room.session.expect_viewer()
    await room.session.ask("First?")
    await asyncio.sleep(0.5)
    await room.session.ask("Second?")
    await asyncio.sleep(0.5)
    await room.session.interrupt()
    await asyncio.sleep(0.5)
    assert not room.session.speaking
    await room.session.ask("Third?")
    room.connect()
    room.session.expect_viewer_no_longer()
    await room.done(3)
    assert {event.turn for event in room.events if isinstance(event, Interrupted)} == {1, 2}
    assert [question[-1].content for question in room.model.questions] == ["Third?"]
    await room.close()


@in_virtual_time
async def test_a_session_that_ends_while_a_question_waits_for_a_peer_ends_at_once() -> None:
    room = Classroom()
    room.session.expect_viewer()
    await room.session.ask("Why?")
    await asyncio.sleep(0.5)
    await room.close()
    assert now() == pytest.approx(0.5)
    assert room.events == [Interrupted(turn=1, ms=0.0), SessionLost(reason="deleted")]


@in_virtual_time
@pytest.mark.parametrize("comes", [True, False])
async def test_the_answer_goes_on_while_the_next_peer_is_on_its_way(comes: bool) -> None:
    room = Classroom(model=FakeLanguageModel("One two three. " * 10))
    room.connect()
    await room.session.ask("Why?")
    await asyncio.sleep(0.5)
    room.session.expect_viewer()
    room.session.detach()
    await asyncio.sleep(0.2)
    assert room.told(Interrupted) == []
    if comes:
        room.session.attach()
    room.session.expect_viewer_no_longer()
    await room.done(1)
    assert len(room.told(Interrupted)) == (0 if comes else 1)
    await room.close()


@in_virtual_time
async def test_a_text_answer_outlives_a_peer_that_gives_up() -> None:
    room = Classroom(model=FakeLanguageModel(seconds_per_token=0.5))
    await room.session.ask("Why?")
    await asyncio.sleep(0.5)
    room.session.expect_viewer()
    room.session.expect_viewer_no_longer()
    await room.done(1)
    assert room.told(Interrupted) == []
    assert TextComplete(turn=1, text="One two. Three four.") in room.events
    await room.close()


@in_virtual_time
async def test_questions_that_were_taken_back_unanswered_are_not_answered_later() -> None:
    room = Classroom(model=FakeLanguageModel(seconds_per_token=1.0))
    room.connect()
    for number in range(1, 6):
        await room.session.ask(f"Question {number}?")
        await asyncio.sleep(0.1)
    await room.done(5)
    assert [message.content for message in room.model.questions[-1] if message.role == "user"] == ["Question 5?"]
    await room.close()


@in_virtual_time
async def test_a_fallback_is_told_once_per_session() -> None:
    room = Classroom(model=FakeLanguageModel(fallback="echo answers"), voice=FakeVoice(fallback="hibari speaks"))
    room.connect()
    for turn in (1, 2):
        await room.session.ask("Why?")
        await room.done(turn)
    assert sorted(event.text for event in room.events if isinstance(event, Notice)) == ["echo answers", "hibari speaks"]
    await room.close()


@in_virtual_time
async def test_every_listener_gets_every_event_and_the_number_of_listeners_is_bounded() -> None:
    room = Classroom()
    others = [room.session.subscribe() for _ in range(SUBSCRIPTIONS - 1)]
    with pytest.raises(TooManyWaiting):
        room.session.subscribe()
    await others.pop().aclose()
    others.append(room.session.subscribe())
    await room.session.say("Hello.")
    await room.done(1)
    await room.close()
    for other in others:
        assert [event async for event in other] == room.events


@in_virtual_time
async def test_an_idle_session_is_reported_after_its_time_and_a_sign_of_life_begins_it_anew() -> None:
    room = Classroom(settings=SessionSettings(None, 60.0))
    await asyncio.sleep(50)
    room.session.touch()
    await asyncio.sleep(50)
    assert room.idle == []
    assert room.session.info().idle_seconds == pytest.approx(50)
    await asyncio.sleep(11)
    assert room.idle == [room.session]
    await room.close()


@in_virtual_time
async def test_a_session_that_speaks_is_not_idle() -> None:
    room = Classroom(settings=SessionSettings(None, 60.0))
    room.connect()
    await room.session.say("One two three. " * 200)
    await asyncio.sleep(110)
    assert room.session.speaking
    assert room.idle == []
    await room.close()


@in_virtual_time
async def test_the_end_is_told_and_ends_everything() -> None:
    room = Classroom(model=FakeLanguageModel("One two three. " * 30, seconds_per_token=0.01))
    room.connect()
    await room.session.ask("Why?")
    await asyncio.sleep(0.2)
    await room.close()
    assert room.events[-1] == SessionLost(reason="deleted")
    assert room.subscription.reason == "deleted"
    assert room.model.open == room.voice.open == 0
    with pytest.raises(SessionNotFound):
        await room.session.ask("Still there?")
    with pytest.raises(SessionNotFound):
        room.session.subscribe()
    await room.session.aclose("again")
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and task not in room.tasks]


@in_virtual_time
async def test_what_is_known_of_a_session() -> None:
    room = Classroom(request=CreateSession(tutor_id="1", student_id="2", kb_id="9"))
    info = room.session.info()
    assert (info.tutor_id, info.student_id, info.kb_id, info.avatar_id) == ("1", "2", "9", "fake")
    assert not info.connected
    assert not info.speaking
    room.connect()
    await room.session.say("One two three.")
    await asyncio.sleep(0.1)
    info = room.session.info()
    assert info.connected
    assert info.speaking
    await room.close()


@in_virtual_time
async def test_ids_and_tokens_cannot_be_guessed() -> None:
    rooms = [Classroom() for _ in range(3)]
    assert len({room.session.session_id for room in rooms} | {room.session.engine_token for room in rooms}) == 6
    assert all(len(room.session.session_id) >= 21 and len(room.session.engine_token) >= 43 for room in rooms)
    for room in rooms:
        await room.close()


@in_virtual_time
async def test_the_language_model_is_told_which_knowledge_base_the_session_names() -> None:
    model = FakeLanguageModel("One.")
    room = Classroom(model=model, request=CreateSession(tutor_id="1", student_id="2", kb_id="9"))
    room.connect()
    await room.session.ask("Why?")
    await room.done(1)
    assert model.kb_ids == ["9"]

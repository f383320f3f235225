import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from fakes import FakeEngine, FakeLanguageModel, FakeListener, FakeRenderer, FakeStage, FakeVoice, fake_avatar
from structlog.testing import capture_logs
from virtual_time import in_virtual_time, now

from gpuserver.domain import FaceCrop, Floats, Generation, LanguageModel, Message, MouthJob, Speech, Voice
from gpuserver.media.playout import Playout
from gpuserver.messages import (
    ErrorEvent,
    Interrupted,
    Notice,
    ServerMessage,
    SpeechEnded,
    SpeechStarted,
    TextComplete,
    TextStream,
    TraceEvent,
)
from gpuserver.pipeline.delivery import MOUTHS_AHEAD, OPENING_FRAMES, Scene
from gpuserver.pipeline.studio import Studio
from gpuserver.pipeline.turn import Line, Turn

AVATAR = fake_avatar()


class Play:
    """A Turn with fakes around it; `events` is what the client was told."""

    def __init__(
        self,
        text: str = "Why?",
        *,
        verbatim: bool = False,
        language_model: LanguageModel | None = None,
        voice: Voice | None = None,
        engine: FakeEngine | None = None,
        seconds_per_mouth: float = 0.0,
        stage: FakeStage | Playout | None = None,
        hearing: Executor | None = None,
        renderer: FakeRenderer | None = None,
    ):
        self.model = language_model or FakeLanguageModel()
        self.voice = voice or FakeVoice()
        self.engine = engine or FakeEngine()
        self.renderer = renderer or FakeRenderer(self.engine, seconds_per_mouth)
        self.stage = stage or FakeStage()
        self.events: list[ServerMessage] = []
        self.generation = Generation(7)
        self.turn = Turn(
            Line(text, verbatim, self.generation, now()),
            Studio(self.model, self.voice, self.engine, self.renderer, hearing=hearing),
            Scene(AVATAR, self.stage),
            self.events.append,
            messages=[Message("user", text)],
        )

    @property
    def frames(self) -> int:
        assert isinstance(self.stage, FakeStage)
        return len(self.stage.frames)

    def told(self, kind: type[ServerMessage]) -> list[ServerMessage]:
        return [event for event in self.events if isinstance(event, kind)]

    def marks(self) -> dict[str, float]:
        (trace,) = [event for event in self.events if isinstance(event, TraceEvent)]
        return trace.marks


async def until(condition: Callable[[], bool], step: float = 0.001) -> None:
    """Let virtual time pass until the condition holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - virtual time costs nothing
            await asyncio.sleep(step)


# ---------------------------------------------------------------- an answer


class RealThread(Executor):
    """A thread for each call; virtual time stands still meanwhile."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        with ThreadPoolExecutor(1, thread_name_prefix="hearing") as pool:
            return pool.submit(fn, *args, **kwargs)


@in_virtual_time
async def test_the_answer_is_streamed_as_text_and_played_as_frames() -> None:
    play = Play()
    await play.turn.run()
    deltas = [event.delta for event in play.events if isinstance(event, TextStream)]
    assert "".join(deltas) == "One two. Three four."
    assert play.told(TextComplete) == [TextComplete(turn=7, text="One two. Three four.")]
    assert play.voice.sentences == ["One two.", "Three four."]  # type: ignore[attr-defined]
    assert play.frames == 2 * 11  # two words of 0.2 s and 20 ms of silence, filled up
    assert all(event.turn == 7 for event in play.events)  # type: ignore[union-attr]


@in_virtual_time
async def test_every_frame_carries_the_mouth_of_its_own_place_in_the_loop() -> None:
    play = Play()
    await play.turn.run()
    assert isinstance(play.stage, FakeStage)
    assert [frame.position for frame in play.stage.frames] == list(range(22))
    assert all(frame.frame is AVATAR.frame_at(frame.position) for frame in play.stage.frames)
    assert [job.frame for job in play.renderer.jobs] == [frame.frame for frame in play.stage.frames]
    assert [job.due for job in play.renderer.jobs] == [position / 25 for position in range(22)]


@in_virtual_time
async def test_the_sound_is_the_voices_in_order_with_nothing_between_the_words() -> None:
    play = Play()
    await play.turn.run()
    assert isinstance(play.stage, FakeStage)
    levels = [int(np.median(frame.sound)) for frame in play.stage.frames]
    assert levels == pytest.approx([1000] * 5 + [1100] * 5 + [0] + [1000] * 5 + [1100] * 5 + [0], abs=5)


@in_virtual_time
async def test_the_trace_has_every_stage_in_order_in_milliseconds_since_the_question() -> None:
    play = Play(language_model=FakeLanguageModel(seconds_per_token=0.1), voice=FakeVoice(seconds_per_piece=0.05), seconds_per_mouth=0.01)
    await play.turn.run()
    marks = play.marks()
    assert list(marks) == ["first_token", "first_sentence", "first_sound", "first_mouth_frame", "first_packet", "done"]
    assert marks["first_token"] == pytest.approx(100, abs=1)
    assert list(marks.values()) == sorted(marks.values())
    assert play.told(SpeechStarted) == [SpeechStarted(turn=7, at_ms=marks["first_packet"])]


@in_virtual_time
async def test_the_whole_spoken_text_is_heard_when_nobody_interrupts() -> None:
    play = Play()
    await play.turn.run()
    text = "One two. Three four."
    assert play.told(SpeechEnded) == [SpeechEnded(turn=7, heard=len(text), text=text)]
    assert play.turn.remembered == text


@in_virtual_time
async def test_a_verbatim_line_needs_no_language_model() -> None:
    play = Play("Hello there. Good day.", verbatim=True)
    await play.turn.run()
    assert play.model.questions == []  # type: ignore[attr-defined]
    assert play.voice.sentences == ["Hello there.", "Good day."]  # type: ignore[attr-defined]
    assert play.told(TextComplete) == [TextComplete(turn=7, text="Hello there. Good day.")]


@in_virtual_time
async def test_speech_starts_while_the_language_model_is_still_writing() -> None:
    play = Play(language_model=FakeLanguageModel("One two. " + "Three " * 50, seconds_per_token=0.1))
    await play.turn.run()
    assert play.marks()["first_packet"] < 500


@in_virtual_time
async def test_the_first_frame_goes_on_as_soon_as_its_sound_and_row_exist() -> None:
    play = Play("word " * 20, verbatim=True, voice=FakeVoice(seconds_per_piece=0.1))
    await play.turn.run()
    marks = play.marks()
    assert marks["first_packet"] - marks["first_sound"] <= 101  # one more piece of 0.1 s, for the listener's look-ahead


@in_virtual_time
async def test_a_full_stage_holds_back_voice_and_language_model() -> None:
    model = FakeLanguageModel(" ".join(f"Number {number} is said now." for number in range(200)))
    play = Play(language_model=model)
    assert isinstance(play.stage, FakeStage)
    play.stage.gate.clear()
    running = asyncio.create_task(play.turn.run())
    await asyncio.sleep(60)
    assert model.tokens_given < 150
    assert len(play.renderer.jobs) <= MOUTHS_AHEAD + 3
    play.turn.interrupt()
    await running


@in_virtual_time
async def test_a_turns_first_frames_are_marked_as_those_a_student_waits_for() -> None:
    play = Play("word " * 5, verbatim=True)
    await play.turn.run()
    assert [job.opening for job in play.renderer.jobs] == [True] * OPENING_FRAMES + [False] * (len(play.renderer.jobs) - OPENING_FRAMES)


@in_virtual_time
async def test_a_listener_that_waits_for_a_device_does_not_hold_up_the_event_loop() -> None:
    class Network(FakeListener):
        blocking = True

        def hear(self, speech: Speech) -> Floats:
            assert threading.current_thread().name.startswith("hearing")
            return super().hear(speech)

    class NetworkEngine(FakeEngine):
        def listener(self) -> FakeListener:
            return Network()

    play = Play("word " * 5, verbatim=True, engine=NetworkEngine(), hearing=RealThread())
    await play.turn.run()
    assert play.frames == 26 and not play.told(ErrorEvent)


@in_virtual_time
async def test_without_a_scene_the_answer_is_text_only() -> None:
    events: list[ServerMessage] = []
    engine, voice = FakeEngine(), FakeVoice()
    studio = Studio(FakeLanguageModel(), voice, engine, FakeRenderer(engine))
    turn = Turn(Line("Why?", False, Generation(1), now()), studio, None, events.append, messages=[Message("user", "Why?")])
    await turn.run()
    assert voice.sentences == []
    assert TextComplete(turn=1, text="One two. Three four.") in events
    assert turn.remembered == "One two. Three four."


# ---------------------------------------------------------------- interruption


class OneByOne(FakeRenderer):
    """Draws one mouth after the other; what was given up meanwhile costs nothing."""

    def __init__(self, engine: FakeEngine, seconds: float):
        super().__init__(engine, seconds)
        self._seconds_each = seconds
        self._waiting: deque[tuple[MouthJob, Future[FaceCrop | None]]] = deque()

    def submit(self, job: MouthJob) -> Future[FaceCrop | None]:
        future: Future[FaceCrop | None] = Future()
        self._waiting.append((job, future))
        if len(self._waiting) == 1:
            self._begin()
        return future

    def _begin(self) -> None:
        asyncio.get_running_loop().call_later(self._seconds_each, self._end)

    def _end(self) -> None:
        self._draw(*self._waiting.popleft())
        while self._waiting and self._waiting[0][1].cancelled():
            self._waiting.popleft()
        if self._waiting:
            self._begin()


@in_virtual_time
async def test_sound_waits_for_lips_only_where_a_sentence_begins() -> None:
    stage = FakeStage()
    stage.waits = 0.1
    play = Play("One two three four five. Six seven eight nine ten.", verbatim=True, stage=stage, renderer=OneByOne(FakeEngine(), 2.0))
    begun = now()
    with capture_logs() as logs:
        await play.turn.run()
    assert logs[-1]["late_mouths"] == sum(frame.crop is not None and frame.crop.drawn_on is not None for frame in stage.frames)
    of_a_sentence = 26  # five words of 0.2 s and 20 ms of silence
    mouths = [frame.crop for frame in stage.frames]
    assert len(mouths) == 2 * of_a_sentence
    openings = {0: stage.frames[0], of_a_sentence: stage.frames[of_a_sentence]}
    for at, frame in openings.items():
        assert mouths[at] is not None
        assert mouths[at].drawn_on is None, "a sentence begins with its own mouth"  # type: ignore[union-attr]
        following = mouths[at + 1]
        assert following is not None
        assert following.drawn_on is frame.frame, "a late mouth is replaced by the one before"
    assert now() - begun < 2.0 * 3 + 0.1 * len(mouths)  # two openings, and the mouth that was in work before the second


@in_virtual_time
async def test_a_film_waits_for_every_mouth() -> None:
    play = Play(seconds_per_mouth=2.0)
    await play.turn.run()
    assert isinstance(play.stage, FakeStage)
    assert all(frame.crop is not None and frame.crop.drawn_on is None for frame in play.stage.frames)


@in_virtual_time
async def test_an_interrupted_turn_puts_no_further_frame_and_lets_go_of_everything() -> None:
    model, voice = FakeLanguageModel("word " * 500, seconds_per_token=0.02), FakeVoice(seconds_per_piece=0.02)
    play = Play(language_model=model, voice=voice, seconds_per_mouth=0.005)
    running = asyncio.create_task(play.turn.run())
    await until(lambda: play.frames > 5)
    assert model.open == voice.open == 1
    play.turn.interrupt()
    frames = play.frames
    await running
    await asyncio.sleep(10)
    assert play.frames == frames
    assert model.open == voice.open == 0
    assert isinstance(play.stage, FakeStage)
    assert play.stage.cancelled == [play.generation]


@in_virtual_time
@pytest.mark.parametrize("at", [0.0, 0.005, 0.03, 0.05, 0.105, 0.2, 0.31, 0.5, 0.9])
async def test_an_interruption_at_any_moment_ends_the_turn_at_once(at: float) -> None:
    play = Play(
        language_model=FakeLanguageModel("One two. " * 20, seconds_per_token=0.03),
        voice=FakeVoice(seconds_per_piece=0.02),
        seconds_per_mouth=0.005,
    )
    running = asyncio.create_task(play.turn.run())
    await asyncio.sleep(at)
    before = now()
    play.turn.interrupt()
    play.turn.interrupt()
    await running
    assert now() - before < 0.001
    assert len(play.told(Interrupted)) == 1
    assert "interrupted" in play.marks()


@in_virtual_time
async def test_a_turn_that_was_interrupted_before_it_ran_says_nothing() -> None:
    play = Play()
    play.turn.interrupt()
    await play.turn.run()
    assert play.model.questions == []  # type: ignore[attr-defined]
    assert [type(event) for event in play.events] == [Interrupted, TraceEvent]


@in_virtual_time
async def test_an_interrupted_answer_is_remembered_as_far_as_it_was_heard() -> None:
    stage = Playout(AVATAR, now)
    play = Play("One two three four five six. Seven eight.", verbatim=True, stage=stage)
    running = asyncio.create_task(play.turn.run())
    await asyncio.sleep(0.001)
    for number in range(16):  # 0.64 s, at 15 characters a second: two words and a bit
        stage.tick(number)
        await asyncio.sleep(0.001)
    play.turn.interrupt()
    await running
    assert play.turn.remembered == "One two"
    (ended,) = [event for event in play.events if isinstance(event, SpeechEnded)]
    assert ended.text == "One two"


@in_virtual_time
async def test_the_interruption_says_how_long_it_took_until_silence() -> None:
    stage = Playout(AVATAR, now)
    play = Play("One two three four five six.", verbatim=True, stage=stage)
    running = asyncio.create_task(play.turn.run())
    for piece in range(21):
        await asyncio.sleep(stage.epoch + piece * 0.02 - now())
        stage.sound(piece)
    await asyncio.sleep(0.004)
    play.turn.interrupt()
    await running
    (interrupted,) = play.told(Interrupted)
    assert isinstance(interrupted, Interrupted)
    assert interrupted.ms == pytest.approx(16 + 5)  # the 20 ms that had left, and the fade


@in_virtual_time
async def test_a_turn_whose_task_is_cancelled_leaves_nothing_behind() -> None:
    play = Play(language_model=FakeLanguageModel("word " * 100, seconds_per_token=0.1))
    running = asyncio.create_task(play.turn.run())
    await asyncio.sleep(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert play.generation.cancelled
    assert play.model.open == 0  # type: ignore[attr-defined]


# ---------------------------------------------------------------- faults


@in_virtual_time
@pytest.mark.parametrize(("question", "apology"), [("Why?", "Sorry, I cannot"), ("为什么？", "抱歉")])
async def test_a_language_model_that_is_down_is_apologized_for_in_the_students_language(question: str, apology: str) -> None:
    play = Play(question, language_model=FakeLanguageModel(fails_after=0))
    await play.turn.run()
    (error,) = [event for event in play.events if isinstance(event, ErrorEvent)]
    assert error.error["type"] == "urn:gpuserver:problem:language-model-failed"
    assert play.voice.sentences[0].startswith(apology)  # type: ignore[attr-defined]
    assert play.marks()["first_packet"] < 3000
    assert play.turn.remembered == ""


@in_virtual_time
@pytest.mark.parametrize(("question", "filler"), [("Why?", "One moment please, I am thinking."), ("为什么？", "请稍等，我想一想。")])
async def test_a_model_that_takes_long_is_bridged_by_one_word_that_it_will_come(question: str, filler: str) -> None:
    play = Play(question, language_model=FakeLanguageModel("One. Two.", seconds_per_token=30.0))
    await play.turn.run()
    assert play.voice.sentences == [filler, "One.", "Two."]  # type: ignore[attr-defined]
    assert play.marks()["first_packet"] < 3000
    assert play.told(TextComplete) == [TextComplete(turn=7, text="One. Two.")]
    assert play.told(Notice) == [Notice(turn=7, code="thinking", text=filler)]
    assert play.turn.remembered == "One. Two."


@in_virtual_time
@pytest.mark.parametrize(("seconds", "remembered"), [(3.0, ""), (4.3, ""), (8.1, "One two")])
async def test_of_an_interrupted_answer_only_the_answer_is_remembered(seconds: float, remembered: str) -> None:
    play = Play(language_model=FakeLanguageModel("One two. three.", seconds_per_token=2.5))
    running = asyncio.create_task(play.turn.run())
    await asyncio.sleep(seconds)
    play.turn.interrupt()
    await running
    assert play.turn.heard_text.startswith("One moment")
    assert play.turn.remembered.startswith(remembered)
    assert "moment" not in play.turn.remembered
    assert bool(play.turn.remembered) == bool(remembered)


@in_virtual_time
async def test_a_model_that_takes_long_and_fails_is_apologized_for() -> None:
    play = Play(language_model=FakeLanguageModel("One. Two.", seconds_per_token=30.0, fails_after=1))
    await play.turn.run()
    filler, one, apology = play.voice.sentences  # type: ignore[attr-defined]
    assert (filler[:10], one, apology[:5]) == ("One moment", "One.", "Sorry")


@in_virtual_time
async def test_a_model_that_answers_in_time_is_not_bridged() -> None:
    play = Play(language_model=FakeLanguageModel("One. Two.", seconds_per_token=0.8))
    await play.turn.run()
    assert play.voice.sentences == ["One.", "Two."]  # type: ignore[attr-defined]


@in_virtual_time
async def test_an_interruption_while_the_model_is_being_loaded_is_silent() -> None:
    play = Play(language_model=FakeLanguageModel(seconds_per_token=60.0))
    running = asyncio.create_task(play.turn.run())
    await asyncio.sleep(2.4)
    play.turn.interrupt()
    await running
    await asyncio.sleep(60)
    assert play.voice.sentences == []  # type: ignore[attr-defined]
    assert play.model.open == 0  # type: ignore[attr-defined]


@in_virtual_time
async def test_a_cut_answer_is_said_as_far_as_it_came_and_then_apologized_for() -> None:
    play = Play(language_model=FakeLanguageModel("One two. Three four. Five.", fails_after=3))
    await play.turn.run()
    assert play.voice.sentences == ["One two.", "Three…", "Sorry, the answer broke off."]  # type: ignore[attr-defined]
    assert len(play.told(ErrorEvent)) == 1
    assert play.told(TextComplete) == [TextComplete(turn=7, text="One two. Three…")]
    assert play.told(Notice) == [Notice(turn=7, code="apology", text="Sorry, the answer broke off.")]


@in_virtual_time
@pytest.mark.parametrize(("fails_after", "remembered"), [(0, ""), (1, "One.")])
async def test_an_apology_that_is_interrupted_is_not_remembered_as_an_answer(fails_after: int, remembered: str) -> None:
    stage = FakeStage()
    play = Play(language_model=FakeLanguageModel("One. Two.", fails_after=fails_after), stage=stage, seconds_per_mouth=0.05)
    running = asyncio.create_task(play.turn.run())
    await until(lambda: bool(stage.frames) and stage.frames[-1].heard > len("One. Sorry, "))
    play.turn.interrupt()
    await running
    assert "Sorry" in play.turn.heard_text
    assert play.turn.remembered == remembered


@in_virtual_time
async def test_an_answer_that_broke_off_after_a_whole_sentence_is_left_as_it_is() -> None:
    play = Play("为什么？", language_model=FakeLanguageModel("一二。 三四。", fails_after=1))
    await play.turn.run()
    assert play.voice.sentences == ["一二。", "抱歉，回答中断了。"]  # type: ignore[attr-defined]
    assert play.told(TextComplete) == [TextComplete(turn=7, text="一二。")]


@in_virtual_time
async def test_an_empty_answer_counts_as_a_failure() -> None:
    play = Play(language_model=FakeLanguageModel(""))
    await play.turn.run()
    assert len(play.told(ErrorEvent)) == 1
    assert play.frames > 0


@in_virtual_time
async def test_a_sentence_no_voice_can_speak_is_said_so_and_the_next_one_goes_on() -> None:
    play = Play(language_model=FakeLanguageModel("One two. Drei vier. Five six."), voice=FakeVoice(unspeakable="Drei"))
    await play.turn.run()
    (notice,) = [event for event in play.events if isinstance(event, Notice)]
    assert notice.code == "unspoken"
    assert "Drei vier." in notice.text
    assert play.frames == 2 * 11
    assert play.told(SpeechEnded) == [SpeechEnded(turn=7, heard=18, text="One two. Five six.")]


@in_virtual_time
async def test_an_answer_no_voice_can_speak_at_all_ends_without_speech() -> None:
    play = Play(voice=FakeVoice(unspeakable="."))
    await play.turn.run()
    assert play.frames == 0
    assert play.told(SpeechStarted) == play.told(SpeechEnded) == []
    assert len(play.told(Notice)) == 2


@in_virtual_time
async def test_a_voice_that_stays_silent_is_said_so() -> None:
    class Mute(FakeVoice):
        async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0):  # type: ignore[no-untyped-def]
            yield Speech(np.zeros(0, np.int16), 24_000, text)

    play = Play("Hello.", verbatim=True, voice=Mute())
    await play.turn.run()
    assert [event.code for event in play.events if isinstance(event, Notice)] == ["unspoken"]


@in_virtual_time
async def test_mouths_that_cannot_be_drawn_stay_the_sources_own_and_the_sound_goes_on() -> None:
    play = Play(engine=FakeEngine(fails=lambda job: job.frame.index % 2 == 1))
    await play.turn.run()
    assert isinstance(play.stage, FakeStage)
    assert all((frame.crop is None) == (frame.frame.index % 2 == 1) for frame in play.stage.frames)
    assert len(play.stage.frames) == 22
    assert [event.code for event in play.events if isinstance(event, Notice)] == ["still_mouth"]


@in_virtual_time
async def test_an_unforeseen_fault_ends_the_turn_with_an_error_and_no_exception() -> None:
    class Broken(FakeEngine):
        def rest(self) -> np.ndarray:
            raise ZeroDivisionError

    play = Play(engine=Broken())
    await play.turn.run()
    (error,) = [event for event in play.events if isinstance(event, ErrorEvent)]
    assert error.error["status"] == 500
    assert play.generation.cancelled
    assert play.model.open == play.voice.open == 0  # type: ignore[attr-defined]
    assert isinstance(play.events[-1], TraceEvent)


@in_virtual_time
async def test_a_fallback_is_told_with_its_reason() -> None:
    play = Play(
        language_model=FakeLanguageModel(fallback="No Ollama; echo answers."), voice=FakeVoice(fallback="edge-tts is down; hibari speaks.")
    )
    await play.turn.run()
    told = {(event.code, event.text) for event in play.events if isinstance(event, Notice)}
    assert told == {("model_fallback", "No Ollama; echo answers."), ("voice_fallback", "edge-tts is down; hibari speaks.")}

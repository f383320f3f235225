"""One student with one avatar: the conversation, the running Turn, the events and who listens to them."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars

from gpuserver.domain import Avatar, Generation, Message, Stage, Voice
from gpuserver.errors import GpuserverError, InvalidInput, SessionNotFound, TooManyWaiting
from gpuserver.messages import ErrorEvent, Interrupted, Notice, ServerMessage, SessionLost
from gpuserver.pipeline.audience import ARRIVAL_SECONDS, Audience
from gpuserver.pipeline.conversation import Conversation
from gpuserver.pipeline.delivery import Scene
from gpuserver.pipeline.idle_time import IdleTime
from gpuserver.pipeline.standing import Told
from gpuserver.pipeline.studio import Studio
from gpuserver.pipeline.subscription import Subscription
from gpuserver.pipeline.turn import Line, Turn
from gpuserver.session_names import new_session_id
from gpuserver.wire import CreateSession, SessionInfo

log = structlog.get_logger(__name__)

LINES_WAITING = 32  # clients of LiveTalking's API send an answer of theirs sentence by sentence
SUBSCRIPTIONS = 16
CLOSING_SECONDS = 2.0
SAID_ONCE = frozenset({"voice_fallback", "model_fallback"})  # notices that would repeat with every sentence
NO_PICTURE = "No picture is connected, so the answer is text only."


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """model: for the tutor, where the request names none. idle_seconds: without a sign of life before `on_idle` is called."""

    model: str | None
    idle_seconds: float


class Session:
    """Made by SessionRegistry inside the event loop, whose clock it goes by; ends with aclose()."""

    def __init__(
        self,
        request: CreateSession,
        avatar: Avatar,
        stage: Stage,
        studio: Studio,
        settings: SessionSettings,
        *,
        on_idle: Callable[[Session], None],
        session_id: str | None = None,
    ):
        self.session_id = session_id or new_session_id()
        self.engine_token = secrets.token_urlsafe(32)
        self.avatar = avatar
        self.stage = stage
        self.created_at = datetime.now(UTC)
        self._request = request
        self._studio = studio
        self._tutors_model = settings.model
        self._conversation = Conversation(request.system_prompt, (Message(item.role, item.content) for item in request.history))
        self._audience = Audience()
        self._turns = 0
        self._turn: Turn | None = None
        self._waiting: deque[Line] = deque()
        self._change = asyncio.Event()
        self._closed = False
        self._said: set[str] = set()
        self._told = Told()
        self._subscriptions: list[Subscription] = []
        self._loop = asyncio.get_running_loop()
        self._idle = IdleTime(settings.idle_seconds, lambda: on_idle(self), lambda: self.speaking)
        self._director = self._loop.create_task(self._direct(), name=f"session {self.session_id}")

    # ------------------------------------------------------------ what the student does

    async def ask(self, text: str, queue: bool = False) -> int:
        """Answer a question; the Turn's number. Replaces what is being said, or waits for its turn if `queue`.

        Raises InvalidInput for an empty text, TooManyWaiting, SessionNotFound once the session has ended.
        """
        return self._line(text, verbatim=False, queue=queue)

    async def say(self, text: str, queue: bool = False) -> int:
        """Speak the text as it is; otherwise as `ask`."""
        return self._line(text, verbatim=True, queue=queue)

    async def play(self, recording: Voice, title: str, queue: bool = False) -> int:
        """Let the recording speak, under a title of one sentence; otherwise as `say`. It is not remembered."""
        return self._line(title, verbatim=True, queue=queue, speaker=recording)

    async def interrupt(self) -> None:
        """Silence now; what waits is dropped too. The `interrupted` events say how long it took."""
        self.touch()
        self._silence()

    def configure(self, *, voice: str | None, rate: float, model: str | None) -> None:
        """Think and speak like this from the next answer on. None: as without a wish."""
        self.touch()
        self._request = self._request.model_copy(update={"voice": voice, "rate": rate, "model": model})

    def touch(self) -> None:
        """A sign of life: the idle time begins anew."""
        self._idle.touch()

    def expect_viewer(self) -> None:
        """A peer is on its way: for at most ARRIVAL_SECONDS, what is to be said waits for it."""
        self._audience.expect()

    def expect_viewer_no_longer(self) -> None:
        """The peer has arrived, and is attached, or it has given up."""
        self._audience.expect_no_longer()
        self._change.set()
        self._end_what_nobody_hears()

    def attach(self) -> None:
        """A peer sees and hears the session now."""
        self._audience.attach()
        self.touch()
        self._change.set()

    def detach(self) -> None:
        """A peer is gone. If it was the last one and none is on its way, the running Turn ends: nobody hears it."""
        self._audience.detach()
        self.touch()
        self._end_what_nobody_hears()

    # ------------------------------------------------------------ events

    def subscribe(self) -> Subscription:
        """All events from now on. Raises SessionNotFound once the session has ended, TooManyWaiting beyond 16 listeners."""
        self._check_open()
        if len(self._subscriptions) >= SUBSCRIPTIONS:
            raise TooManyWaiting("Too many connections listen to this session.", advice="Close one of them.")
        subscription = Subscription(self._subscriptions.remove)
        self._subscriptions.append(subscription)
        return subscription

    def publish(self, event: ServerMessage) -> None:
        """Tell everyone who listens. A fallback that lasts is told once per session."""
        if isinstance(event, Notice) and event.code in SAID_ONCE:
            if event.text in self._said:
                return
            self._said.add(event.text)
        for subscription in list(self._subscriptions):
            subscription.offer(event)

    def tell_standing(self) -> None:
        """Pass on what is news in the standing notices, while somebody is being answered; else with the next answer."""
        if self._turn is not None:
            for notice in self._told.news(self._studio.standing):
                self.publish(notice)

    # ------------------------------------------------------------ what is known of it

    @property
    def avatar_id(self) -> str:
        return self.avatar.avatar_id

    @property
    def connected(self) -> bool:
        """Whether a peer is attached."""
        return self._audience.is_there

    @property
    def speaking(self) -> bool:
        """Whether an answer is being thought of or said."""
        return self._turn is not None or bool(self._waiting)

    @property
    def lines_waiting(self) -> int:
        """Questions whose answer has not begun."""
        return len(self._waiting)

    def info(self) -> SessionInfo:
        return SessionInfo(
            session_id=self.session_id,
            tutor_id=self._request.tutor_id,
            student_id=self._request.student_id,
            avatar_id=self.avatar_id,
            kb_id=self._request.kb_id,
            created_at=self.created_at,
            idle_seconds=round(self._idle.seconds, 3),
            connected=self.connected,
            speaking=self.speaking,
        )

    async def aclose(self, reason: str) -> None:
        """End the Turn, tell the listeners why, let them go."""
        if not self._closed:
            self._closed = True
            self._idle.cancel()
            self._silence()
            self._change.set()
        _, stuck = await asyncio.wait([self._director], timeout=CLOSING_SECONDS)
        if stuck:
            log.warning("turn_did_not_end", session_id=self.session_id)
            self._director.cancel()
            await asyncio.wait([self._director])
        self.publish(SessionLost(reason=reason))
        for subscription in list(self._subscriptions):
            subscription.close(reason)

    # ------------------------------------------------------------ one Turn after the other

    def _line(self, text: str, *, verbatim: bool, queue: bool, speaker: Voice | None = None) -> int:
        self._check_open()
        self.touch()
        if not text.strip():
            raise InvalidInput("The text is empty.", advice="Send a text with at least one word.")
        if not queue:
            self._silence()
        elif len(self._waiting) >= LINES_WAITING:
            raise TooManyWaiting(f"{LINES_WAITING} questions wait already.")
        self._turns += 1
        self._waiting.append(Line(text.strip(), verbatim, Generation(self._turns), self._loop.time(), speaker))
        self._change.set()
        return self._turns

    def _silence(self) -> None:
        """End what is being said and forget what waits."""
        if self._turn is not None:
            self._turn.interrupt()
        self._change.set()
        while self._waiting:
            self.publish(Interrupted(turn=self._waiting.popleft().generation.number, ms=0.0))

    def _end_what_nobody_hears(self) -> None:
        if self._turn is not None and self._turn.is_aloud and not (self.connected or self._audience.is_awaited):
            self._silence()

    async def _direct(self) -> None:
        """Runs the Turns, one after the other: a new one begins when the old one is silent and remembered."""
        bind_contextvars(session_id=self.session_id)  # in every log line of this task and of those that it starts
        while True:
            while not self._waiting:
                if self._closed:
                    return
                self._change.clear()
                await self._change.wait()
            await self._wait_for_viewer()
            if self._waiting:  # else it was taken back meanwhile
                line = self._waiting.popleft()
                with bound_contextvars(turn=line.generation.number):
                    await self._perform(line)

    async def _perform(self, line: Line) -> None:
        try:
            self._turn = self._make_turn(line)
            self.tell_standing()
            await self._turn.run()
            self._remember(line, self._turn.remembered)
        except Exception:  # the session outlives a broken Turn
            log.exception("turn_failed")
            self.publish(ErrorEvent(turn=line.generation.number, error=GpuserverError("The answer broke off.").problem()))
        finally:
            self._turn = None

    async def _wait_for_viewer(self) -> None:
        """While a peer is on its way, the line stays in the queue, where it can be replaced and taken back."""
        try:
            async with asyncio.timeout_at(self._audience.expected_until):
                while self._waiting and self._audience.is_awaited:
                    self._change.clear()
                    await self._change.wait()
        except TimeoutError:
            log.info("viewer_did_not_come", seconds=ARRIVAL_SECONDS)

    def _remember(self, line: Line, answer: str) -> None:
        """A question is remembered with its answer or not at all: one that was taken back is not to be answered later."""
        if answer and not line.verbatim:
            self._conversation.remember("user", line.text)
        self._conversation.remember("assistant", answer)

    def _make_turn(self, line: Line) -> Turn:
        if not self.connected:
            self.publish(Notice(turn=line.generation.number, code="no_picture", text=NO_PICTURE))
        return Turn(
            line,
            self._studio if line.speaker is None else replace(self._studio, voice=line.speaker),
            Scene(self.avatar, self.stage) if self.connected else None,
            self.publish,
            messages=[] if line.verbatim else self._conversation.messages(line.text),
            model=self._request.model or self._tutors_model,
            kb_id=self._request.kb_id,
            voice=self._request.voice,
            rate=self._request.rate,
        )

    def _check_open(self) -> None:
        if self._closed:
            raise SessionNotFound("The session has ended.")

"""A session that a peer can belong to, without a registry: it notes when somebody watches. And what must be left of its peers: nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType

from moving_avatar import moving_avatar

from gpuserver.media.peers import Peers
from gpuserver.media.playout import Playout
from gpuserver.pipeline.subscription import Subscription
from gpuserver.wire import Offer


class WatchedSession:
    """Notes when somebody watches."""

    def __init__(self, session_id: str = "s1") -> None:
        self.session_id = session_id
        self.notes: list[str] = []
        self.expected = 0  # peers on their way
        self.playout = Playout(moving_avatar())
        self.events = Subscription(lambda _subscription: None)
        self.detached = asyncio.Event()

    def subscribe(self) -> Subscription:
        return self.events

    def expect_viewer(self) -> None:
        self.expected += 1

    def expect_viewer_no_longer(self) -> None:
        self.expected -= 1

    def attach(self) -> None:
        self.notes.append("attach")

    def detach(self) -> None:
        self.notes.append("detach")
        self.detached.set()


class NothingLeft:
    """Fails if a task is left behind, or if one of aiortc's own tasks has failed."""

    def __init__(self) -> None:
        self._failures: list[str] = []

    async def __aenter__(self) -> NothingLeft:
        self._before = asyncio.all_tasks()
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: self._failures.append(repr(context)))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        known = {*self._before, asyncio.current_task()}
        if left := asyncio.all_tasks() - known:
            await asyncio.wait(left, timeout=1)
        assert not asyncio.all_tasks() - known
        assert not self._failures


def negotiation(peers: Peers, session: WatchedSession, change: Callable[[str], str] = str) -> Callable[[str], Awaitable[str]]:
    async def negotiate(sdp: str) -> str:
        return (await peers.answer(session, session.playout, Offer(sdp=change(sdp), type="offer"))).sdp

    return negotiate

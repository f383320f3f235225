"""What make soak does for long, done briefly: sessions leave nothing behind, the picture in Chromium goes on through every switch."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from aiortc import RTCPeerConnection

from gpuserver.media.peer import Peer
from gpuserver.media.playout import Playout
from gpuserver.pipeline.session import Session
from soak.sessions import growth

pytest_plugins = ("media_fixtures",)


@pytest.mark.filterwarnings("ignore:.*reduce_op:FutureWarning")  # torch, where a test before has loaded it, is looked into as well
async def test_sessions_that_have_ended_leave_no_file_no_task_and_no_part_of_themselves(demo_avatars: Path) -> None:
    gc.collect()
    others = _parts()  # of other tests in this process
    before, after = await growth(demo_avatars / "demo", sessions=12, warm_up=3)
    assert after.files <= before.files
    assert after.tasks <= before.tasks
    gc.collect()
    known = {id(each) for each in others}
    assert [type(each).__name__ for each in _parts() if id(each) not in known] == []


def _parts() -> list[object]:
    return [each for each in gc.get_objects() if isinstance(each, Session | Playout | Peer | RTCPeerConnection)]

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuserver.musetalk.render_service.channel import Channel
from gpuserver.musetalk.render_service.messages import (
    LONGEST,
    AskStatus,
    Hear,
    Heard,
    Join,
    Message,
    Outcome,
    Paint,
    Painted,
    Ready,
    Share,
    Status,
    Unusable,
    decode,
    encode,
)

ALL: list[Message] = [
    Join(),
    AskStatus(),
    Paint(3, 12.5, True),
    Hear(0, 0, 1500),
    Ready(384, 24, 4),
    Unusable("No GPU.", "Buy one."),
    Share(112.5),
    Painted(3, Outcome.DONE),
    Heard(0, Outcome.NOTHING),
    Status({"state": "ready", "workers": 2}),
]


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    """A channel and the other side of its socket."""
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    yield channel, theirs
    channel.close()
    theirs.close()


@pytest.mark.parametrize("message", ALL, ids=lambda message: type(message).__name__)
def test_what_is_said_is_understood(message: Message) -> None:
    assert decode(encode(message)[4:]) == message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b"[]",
        b'"Join"',
        b'["Exit"]',
        b'[["Join"]]',
        b'["Paint",3,12.5]',
        b'["Paint",3,12.5,true,1]',
        b'["Paint",true,12.5,true]',
        b'["Paint",3,12,true]',
        b'["Paint",3,NaN,true]',
        b'["Paint",3,Infinity,true]',
        b'["Hear",0,0,"9"]',
        b'["Share",' + b"[" * 5000 + b"]" * 5000 + b"]",
        b'["Hear",' + b"9" * 5000 + b",0,0]",
    ],
    ids=range(16),
)
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        decode(body)


def test_messages_are_told_apart_however_they_arrive(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    stream = b"".join(encode(message) for message in ALL)
    for byte in stream[:60]:
        other.send(bytes([byte]))
    other.send(stream[60:])
    assert [channel.receive() for _ in ALL] == ALL


def test_a_message_that_is_too_long_is_refused_before_it_is_read(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    other.send((LONGEST + 1).to_bytes(4, "big"))
    with pytest.raises(ValueError, match=str(LONGEST + 1)):
        channel.receive()


def test_the_end_of_the_other_side_is_the_end(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    other.send(encode(Join())[:5])
    other.close()
    assert channel.receive() is None
    with pytest.raises(OSError):
        channel.send(Join())


def test_who_reads_nothing_is_not_waited_for(ends: tuple[Channel, socket.socket]) -> None:
    channel, _ = ends
    with pytest.raises(BlockingIOError):
        while True:
            channel.send(Status({"text": "x" * 10_000}))


def test_a_file_comes_with_a_message_only_to_who_takes_one() -> None:
    ours, theirs = socket.socketpair()
    takes, gives = Channel(ours, takes_descriptor=True), Channel(theirs)
    read, write = os.pipe()
    before = _open_files()
    gives.send(Join(), write)
    takes.send(Join(), write)
    assert takes.receive() == Join() == gives.receive()
    received = takes.take_descriptor()
    assert os.fstat(received).st_ino == os.fstat(write).st_ino
    os.close(received)
    with pytest.raises(ValueError):
        gives.take_descriptor()
    assert _open_files() == before
    for end in (takes, gives):
        end.close()
    os.close(read)
    os.close(write)


def _open_files() -> set[int]:
    return {int(file.name) for file in Path("/proc/self/fd").iterdir()}

"""Messages over a Unix socket, in order, in both directions; and the one file descriptor that comes with them."""

from __future__ import annotations

import array
import os
import socket
import threading
from contextlib import suppress

from gpuserver.musetalk.render_service.messages import LENGTH_BYTES, Message, body_length, decode, encode

_PIECE = 65_536  # bytes that are read at a time


class Channel:
    """send() from any thread, receive() from one. takes_descriptor: whether the other side may send one."""

    def __init__(self, connected: socket.socket, *, takes_descriptor: bool = False):
        self._socket = connected
        self._takes_descriptor = takes_descriptor
        self._sending = threading.Lock()
        self._received = bytearray()
        self._descriptors: list[int] = []

    def send(self, message: Message, descriptor: int | None = None) -> None:
        """Never waits: what is on its way is bounded by slots and has room in the socket. Raises OSError; the channel has ended then."""
        frame = encode(message)
        extra = [] if descriptor is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        with self._sending:
            if self._socket.sendmsg([frame], extra, socket.MSG_DONTWAIT) != len(frame):
                raise BlockingIOError("the other side does not read")

    def receive(self) -> Message | None:
        """The next message; None at the end. Raises ValueError for what is none: nothing that follows makes sense then."""
        while (body := self._next_body()) is None:
            if not (piece := self._read()):
                return None
            self._received += piece
        return decode(body)

    def take_descriptor(self) -> int:
        """The file descriptor that came with a message; the caller's to close. Raises ValueError if none did."""
        if not self._descriptors:
            raise ValueError("a file descriptor should have come with the message")
        return self._descriptors.pop()

    def end(self) -> None:
        """From any thread: receive() returns, here and on the other side."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """By the thread that receives, at last."""
        self.end()
        with self._sending:
            self._socket.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()

    def _next_body(self) -> bytes | None:
        if len(self._received) < LENGTH_BYTES:
            return None
        end = LENGTH_BYTES + body_length(bytes(self._received[:LENGTH_BYTES]))
        if len(self._received) < end:
            return None
        body = bytes(self._received[LENGTH_BYTES:end])
        del self._received[:end]
        return body

    def _read(self) -> bytes:
        try:
            if not self._takes_descriptor:
                return self._socket.recv(_PIECE)
            piece, descriptors, _, _ = socket.recv_fds(self._socket, _PIECE, 1, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            return b""
        self._descriptors += descriptors
        return piece

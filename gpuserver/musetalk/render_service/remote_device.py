"""How a worker comes to a renderer process: it waits in the queue of the socket, which the router holds, until one is there."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

from gpuserver.errors import DeviceLost, NoDevice
from gpuserver.musetalk.render_service.channel import Channel
from gpuserver.musetalk.render_service.client import RendererClient
from gpuserver.musetalk.render_service.messages import Join, Message, Ready, Unusable
from gpuserver.musetalk.render_service.remote_engine import RemoteEngine
from gpuserver.musetalk.render_service.slots import Layout, map_slots
from gpuserver.musetalk.renderer import Device


class RemoteDevice:
    """Implements engines.Returning: the device of one renderer process, as often as that is started."""

    def __init__(self, path: Path):
        self._path = path
        self._lock = threading.Lock()
        self._channel: Channel | None = None  # of an attempt that waits
        self._client: RendererClient | None = None
        self._closed = False

    def __call__(self) -> Sequence[Device]:
        """Waits until the process is there and has loaded its networks; one that ends meanwhile is started again and waited for.

        Raises NoDevice where it cannot paint, with its reason; DeviceFull; OSError where nobody starts processes any more.
        """
        while True:
            client = self._join()
            if client is None:
                continue
            client.start()
            try:
                engine = RemoteEngine(client)
            except DeviceLost:
                continue
            with self._lock:
                self._client = client
                if not self._closed:
                    return [Device(engine)]
            client.close()

    @property
    def lost(self) -> bool:
        return self._client is not None and self._client.lost

    def close(self) -> None:
        """End the connection, or the attempt that waits for one; there will be no other."""
        with self._lock:
            self._closed = True
            channel, client = self._channel, self._client
        if channel is not None:
            channel.end()
        if client is not None:
            client.close()

    def _join(self) -> RendererClient | None:
        """None: the process has ended before it answered."""
        channel = self._connect()
        try:
            channel.send(Join())
            answer = channel.receive()
            if isinstance(answer, Ready):
                return _client(channel, Layout(answer.width, answer.paint_slots, answer.hear_slots))
        except ConnectionError:
            answer = None
        except ValueError as error:
            channel.close()
            raise NoDevice(f"The renderer process is not understood: {error}.") from error
        channel.close()
        if answer is not None:
            raise _refused(answer)
        return None

    def _connect(self) -> Channel:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        channel = Channel(connection, takes_descriptor=True)
        with self._lock:
            if self._closed:
                channel.close()
                raise NoDevice("The media server ends.")
            self._channel = channel
        try:
            connection.connect(str(self._path))
        except OSError:
            channel.close()
            raise
        return channel


def _client(channel: Channel, layout: Layout) -> RendererClient:
    descriptor = channel.take_descriptor()
    try:
        return RendererClient(channel, layout, map_slots(layout, descriptor))
    finally:
        os.close(descriptor)


def _refused(answer: Message) -> NoDevice:
    if isinstance(answer, Unusable):
        return NoDevice(answer.reason, advice=answer.advice)
    return NoDevice(f"The renderer process answers with {type(answer).__name__}.")

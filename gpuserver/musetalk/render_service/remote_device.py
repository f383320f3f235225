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

RETRY_SECONDS = 0.5  # after a process that has ended before it was of use: a fault of it is not to become a storm of attempts


class RemoteDevice:
    """Implements engines.Returning: the device of one renderer process, as often as that is started."""

    def __init__(self, path: Path):
        self._path = path
        self._lock = threading.Lock()
        self._channel: Channel | None = None  # of an attempt that waits
        self._client: RendererClient | None = None
        self._closing = threading.Event()

    def __call__(self) -> Sequence[Device]:
        """Waits until the process is there and has loaded its networks; one that ends meanwhile is started again and waited for.

        Raises NoDevice where it cannot paint, with its reason; DeviceFull; OSError where nobody starts processes any more.
        """
        while True:
            client = self._join()
            engine = None if client is None else _engine(client)
            if engine is None:
                self._closing.wait(RETRY_SECONDS)
                continue
            with self._lock:
                self._client = client
                if not self._closing.is_set():
                    return [Device(engine)]
            engine.close()

    @property
    def lost(self) -> bool:
        return self._client is not None and self._client.lost

    def close(self) -> None:
        """End the connection, or the attempt that waits for one; there will be no other."""
        self._closing.set()
        with self._lock:
            channel, client = self._channel, self._client
        if channel is not None:
            channel.end()
        if client is not None:
            client.close()

    def _join(self) -> RendererClient | None:
        """None: the process has ended before it answered."""
        channel = self._connect()
        client: RendererClient | None = None
        try:
            channel.send(Join())
            client = _welcomed(channel, channel.receive())
        except ConnectionError:
            pass
        except ValueError as error:
            raise NoDevice(f"The renderer process is not understood: {error}.") from error
        finally:
            if client is None:
                channel.close()
        return client

    def _connect(self) -> Channel:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        channel = Channel(connection, takes_descriptor=True)
        with self._lock:
            if self._closing.is_set():
                channel.close()
                raise NoDevice("The media server ends.")
            self._channel = channel
        try:
            connection.connect(str(self._path))
        except OSError:
            channel.close()
            raise
        return channel


def _engine(client: RendererClient) -> RemoteEngine | None:
    """None: the process has ended meanwhile. Raises DeviceFull."""
    client.start()
    try:
        return RemoteEngine(client)
    except DeviceLost:
        return None
    except BaseException:
        client.close()
        raise


def _welcomed(channel: Channel, answer: Message | None) -> RendererClient | None:
    """Raises NoDevice, ValueError, OSError."""
    match answer:
        case None:
            return None
        case Ready():
            layout = Layout(answer.width, answer.paint_slots, answer.hear_slots)
            descriptor = channel.take_descriptor()
            try:
                return RendererClient(channel, layout, map_slots(layout, descriptor))
            finally:
                os.close(descriptor)
        case Unusable():
            raise NoDevice(answer.reason, advice=answer.advice)
    raise ValueError(f"it answers with {type(answer).__name__}")

"""A renderer process as an engine of a worker: the worker hears and pastes, the process paints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from gpuserver.domain import FaceCrop, Floats, Listener, MouthJob
from gpuserver.errors import DeviceLost
from gpuserver.musetalk.neural.musetalk_listener import MuseTalkListener, rest_row
from gpuserver.musetalk.render_service.client import RendererClient


class RemoteEngine:
    """Implements domain.QueueingEngine. Raises DeviceLost or DeviceFull at once where the process cannot even hear silence."""

    name = "musetalk"

    def __init__(self, client: RendererClient):
        self._client = client
        self._rest = rest_row(client)

    @property
    def max_batch(self) -> int:
        """How many jobs it takes now."""
        return self._client.room

    @property
    def frames_per_second(self) -> float | None:
        """This worker's share."""
        return self._client.frames_per_second

    def listener(self) -> Listener:
        return MuseTalkListener(self._client)

    def rest(self) -> Floats:
        return self._rest

    def render(self, jobs: Sequence[MouthJob]) -> Sequence[FaceCrop | None]:
        return [self.submit(job).result() for job in jobs]

    def wait_for_room(self) -> bool:
        return self._client.wait_for_room()

    def submit(self, job: MouthJob) -> Future[FaceCrop | None]:
        return self._client.submit(job)

    def when_lost(self, tell: Callable[[DeviceLost], None]) -> None:
        self._client.when_lost(tell)

    def close(self) -> None:
        self._client.close()

"""Prepares avatars for MuseTalk in the background, one after the other, when they are first shown on a server that draws with it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from gpuserver.errors import AvatarNotFound, Cancelled, GpuserverError
from gpuserver.musetalk.avatar_manager import AvatarManager

RETRY_SECONDS = 600.0  # after a failure; the reason (weights, disk, GPU) may have gone by then
MOST_WAITING = 64

_log = logging.getLogger(__name__)


class LatentsOnDemand:
    """One thread, started when there is something to do. Until an avatar is prepared, sessions show it with the warp engine.

    useful: whether MuseTalk draws here, or will as soon as it is loaded.
    """

    def __init__(self, manager: AvatarManager, useful: Callable[[], bool] = lambda: True, now: Callable[[], float] = time.monotonic):
        self._manager = manager
        self._useful = useful
        self._now = now
        self._lock = threading.Lock()
        self._waiting: set[str] = set()
        self._failed: dict[str, float] = {}  # when
        self._cancel = threading.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="latents")

    def want(self, avatar_id: str) -> Future[None] | None:
        """Prepare this avatar soon; None if that is of no use, under way already, failed a short time ago, or too many wait.

        Returns at once.
        """
        if not self._useful():
            return None
        with self._lock:
            failed = self._failed.get(avatar_id)
            tired = failed is not None and self._now() - failed < RETRY_SECONDS
            if self._cancel.is_set() or avatar_id in self._waiting or tired or len(self._waiting) >= MOST_WAITING:
                return None
            self._waiting.add(avatar_id)
            work = self._worker.submit(self._prepare, avatar_id)
        _log.info("avatar %s is shown with the warp engine while it is being prepared for MuseTalk", avatar_id)
        return work

    def close(self) -> None:
        """End the preparation that runs, forget those that wait. Blocks until nothing of it is left."""
        self._cancel.set()
        self._worker.shutdown(cancel_futures=True)

    def _prepare(self, avatar_id: str) -> None:
        failed: float | None = None
        try:
            self._manager.prepare_for_musetalk(avatar_id, cancel=self._cancel)
        except (AvatarNotFound, Cancelled) as error:
            _log.info("avatar %s is not prepared for MuseTalk: %s", avatar_id, error.detail)
        except (GpuserverError, OSError) as error:
            failed = self._now()
            said = f"{error.detail} {error.advice}" if isinstance(error, GpuserverError) else str(error)
            _log.warning("avatar %s stays with the warp engine: %s", avatar_id, said)
        except Exception:  # noqa: BLE001 - a defect; nobody looks at what becomes of this work
            failed = self._now()
            _log.exception("avatar %s stays with the warp engine", avatar_id)
        finally:
            with self._lock:
                self._waiting.discard(avatar_id)
                self._failed.pop(avatar_id, None)
                if failed is not None:
                    self._failed[avatar_id] = failed

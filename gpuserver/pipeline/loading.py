"""Loads what takes seconds in a thread that a server's shutdown does not wait for."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, cast

T = TypeVar("T")


class _Loader(threading.Thread):
    """Not a daemon: the interpreter's end would crash in the native code of what is being loaded."""


def load_in_background(load: Callable[[], T], name: str) -> asyncio.Future[T]:
    """The result of `load`, in time. Cancel the future to have it no longer; its thread then ends by itself.

    The event loop's end does not wait for it, as it would for an executor's thread.
    """
    loop = asyncio.get_running_loop()
    loaded: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if loaded.done():
            return
        if error is not None:
            loaded.set_exception(error)
        else:
            loaded.set_result(cast(T, result))

    def run() -> None:
        result, error = None, None
        try:
            result = load()
        except Exception as failure:  # noqa: BLE001 - it belongs to whoever awaits the future
            error = failure
        with suppress(RuntimeError):  # the loop has ended: nobody waits
            loop.call_soon_threadsafe(settle, result, error)

    _Loader(target=run, name=name).start()
    return loaded


def leave_what_is_being_loaded() -> None:
    """End the process, with success, if something is still being loaded; else do nothing. The last call of a server."""
    if any(isinstance(thread, _Loader) for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

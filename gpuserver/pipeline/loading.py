"""Loads what takes seconds in a thread that a shutdown does not wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, cast

T = TypeVar("T")


def load_in_background(load: Callable[[], T], name: str) -> asyncio.Future[T]:
    """The result of `load`, in time. Cancel the future to have it no longer: its thread ends by itself or with the process.

    An executor will not do: its threads are joined when the loop and the interpreter end.
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

    threading.Thread(target=run, name=name, daemon=True).start()
    return loaded

"""English spelling to phonemes: hibari's dictionaries, loaded once and shared by whoever needs them."""

from __future__ import annotations

import threading
from typing import Any


class EnglishG2p:
    """Text in, a string of misaki's English phonemes out. The first call loads the dictionaries: 1 s, 100 MB. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._g2p: Any = None

    def __call__(self, text: str) -> str:
        with self._lock:
            if self._g2p is None:
                from hibari.g2p import G2P  # type: ignore[import-untyped]

                self._g2p = G2P(british=False)
            return str(self._g2p(text))

"""The Hugging Face hub as a place to get files from. huggingface_hub brings addresses, headers and the HTTP client (proxies, HF_TOKEN,
HF_ENDPOINT); the bytes are written here, because its own download forgets what has arrived when it fails, and one file has 3.4 GB.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpuserver.errors import GpuserverError, UpstreamFailed
from gpuserver.musetalk.weight_files.model_files import Source

if TYPE_CHECKING:
    import httpx

STALL_SECONDS = 30.0  # a connection that brings nothing for so long counts as broken
_LARGEST = 8_000_000_000  # bytes of a file whose size the hub does not say; the largest official one has 3.4 GB
_TRY_LATER = frozenset({408, 429, 500, 502, 503, 504})
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-")


class Interrupted(Exception):
    """The hub could not be reached, broke off, or asks to come back later. Worth another attempt."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A file as the hub announces it. size in bytes, sha256 of its content; None where the hub does not say."""

    url: str
    size: int | None
    sha256: str | None


class Hub:
    """endpoint: an address instead of HF_ENDPOINT or https://huggingface.co. Raises GpuserverError if huggingface_hub is not installed."""

    def __init__(self, endpoint: str | None = None):
        try:
            from huggingface_hub import constants
        except ImportError as error:
            raise GpuserverError("huggingface_hub is not installed.", advice="pip install 'gpuserver[musetalk]'") from error
        self.endpoint: str = endpoint or constants.ENDPOINT

    def ask(self, source: Source) -> Remote:
        """What the hub says of a file. Raises Interrupted, UpstreamFailed."""
        from httpx import TransportError
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        url = hf_hub_url(source.repository, source.name, revision=source.revision, endpoint=self.endpoint)
        try:
            metadata = get_hf_file_metadata(url, timeout=STALL_SECONDS, endpoint=self.endpoint)
        except HfHubHTTPError as error:
            self._refuse(error.response.status_code, source.page)
            raise
        except OfflineModeIsEnabled as error:
            raise UpstreamFailed("HF_HUB_OFFLINE forbids downloads.", advice="Unset it, or copy the files by hand.") from error
        except TransportError as error:
            raise Interrupted(f"{self.endpoint} does not answer ({type(error).__name__})") from error
        etag = metadata.etag or ""  # of a large file: its sha256
        return Remote(url, metadata.size, etag if _SHA256.fullmatch(etag) else None)

    def fetch(self, remote: Remote, partial: Path, arrived: Callable[[int], None]) -> None:
        """Append what is missing to `partial`, which may be there from an earlier attempt. arrived: is told the bytes there are.

        Raises Interrupted (the bytes stay), UpstreamFailed.
        """
        from httpx import Timeout, TransportError
        from huggingface_hub import get_session, get_token

        there = partial.stat().st_size if partial.is_file() else 0
        if there and there == remote.size:
            return
        headers = {"Accept-Encoding": "identity"}
        if token := get_token():  # httpx sends it to the hub alone, not to where the hub redirects
            headers["Authorization"] = f"Bearer {token}"
        if there:
            headers["Range"] = f"bytes={there}-"
        try:
            with get_session().stream("GET", remote.url, headers=headers, timeout=Timeout(STALL_SECONDS)) as answer:
                self._append(answer, remote, partial, there, arrived)
        except TransportError as error:
            raise Interrupted(f"the transfer broke off ({type(error).__name__})") from error
        if remote.size is not None and partial.stat().st_size < remote.size:
            raise Interrupted("the transfer ended too early")

    def _append(self, answer: httpx.Response, remote: Remote, partial: Path, there: int, arrived: Callable[[int], None]) -> None:
        if answer.status_code == 416:  # more is there than the file has: not this file
            partial.unlink()
            raise Interrupted("what had arrived did not fit; it begins anew")
        self._refuse(answer.status_code, remote.url)
        span = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
        resumed = answer.status_code == 206 and span is not None and int(span[1]) == there
        size = there if resumed else 0
        with partial.open("ab" if resumed else "wb") as file:
            for chunk in answer.iter_raw():  # as they come: a chunk of a given size that is never full would be lost
                size += len(chunk)
                if size > (_LARGEST if remote.size is None else remote.size):
                    partial.unlink()
                    raise UpstreamFailed(f"{self.endpoint} sends more than the file has: {remote.url}")
                file.write(chunk)
                arrived(size)

    def _refuse(self, status: int, page: str) -> None:
        """Raises unless the answer is good."""
        if status in _TRY_LATER:
            raise Interrupted(f"{self.endpoint} answers with status {status}")
        if status >= 300:
            raise UpstreamFailed(
                f"{self.endpoint} does not give the file (status {status}): {page}",
                advice="Look at the address in a browser; if HF_ENDPOINT names a mirror, it may lack the file.",
            )

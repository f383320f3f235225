"""What a curl line of the documents would send, sent by httpx: the tests need no curl."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import httpx

PRINTED_VIDEO = "/tmp/test.mp4"
FORM = "application/x-www-form-urlencoded"


def as_curl_sends_it(line: str, printed_address: str, server: str, video: Path) -> httpx.Response:
    """The answer to a line with -X, -H, -d, -F and -N, for the server at another address and another video."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("-N", action="store_true")
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="body")
    parser.add_argument("-F", dest="fields", action="append", default=[])
    call = parser.parse_args(shlex.split(line)[1:])
    fields = dict(field.split("=", 1) for field in call.fields)
    parts = [
        (name, (video.name, video.read_bytes()) if value.startswith("@") else (None, value.encode())) for name, value in fields.items()
    ]
    headers = {"Content-Type": FORM} if call.body else {}
    return httpx.request(
        call.method or ("POST" if call.body or parts else "GET"),
        call.url.replace(printed_address, server),
        headers=headers | dict(header.split(": ", 1) for header in call.headers),
        content=call.body.replace(PRINTED_VIDEO, str(video)) if call.body else None,
        files=parts or None,
        timeout=60,
    )

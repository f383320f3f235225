"""Decodes an audio file that may be hostile. Runs as a child process with limits:

    python -m gpuserver.media.sound_decoder SECONDS < file

The open file is standard input; no path of it is known here. Standard output carries the sound, int16 mono at 48 kHz, as it is
decoded. The exit status is 0, UNREADABLE or TOO_LONG; anything else is a failure of the decoder. The parent's side is audio_upload.py.
"""

from __future__ import annotations

import resource
import sys
from typing import BinaryIO

from gpuserver.errors import InvalidInput, Unreadable
from gpuserver.media.recording import sound_pieces

UNREADABLE, TOO_LONG = 10, 11
ADDRESS_SPACE = 2 << 30  # bytes; Python, numpy and FFmpeg map half of it
CPU_SECONDS = 60  # five minutes of sound take one
OPEN_FILES = 64


def limit_resources() -> None:
    """What a hostile file can take at most. A limit is never raised above the one that is set already."""
    limits = (
        (resource.RLIMIT_AS, ADDRESS_SPACE),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    )
    for which, wanted in limits:
        _, hard = resource.getrlimit(which)
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(which, (allowed, allowed))


def decode(file: BinaryIO, out: BinaryIO, longest: float) -> int:
    """Write the sound of `file` to `out`; the exit status. longest: seconds."""
    try:
        for pcm in sound_pieces(file, longest):
            out.write(pcm.tobytes())
            out.flush()
    except InvalidInput:
        return TOO_LONG
    except Unreadable:
        return UNREADABLE
    return 0


def main() -> int:
    limit_resources()
    return decode(sys.stdin.buffer, sys.stdout.buffer, float(sys.argv[1]))


if __name__ == "__main__":
    sys.exit(main())

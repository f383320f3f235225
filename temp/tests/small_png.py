"""PNG files of at most 256 colours: a third of the size, and hard to tell from the original."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

ONCE = Fraction(1, 25)  # a filter wants a time base, also for a single picture


def write_small_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write uint8 [height, width, 3] RGB with the 256 colours that suit it best."""
    frame = av.VideoFrame.from_ndarray(picture, "rgb24")
    frame.pts, frame.time_base = 0, ONCE
    reduced = _reduce(frame)
    encoder = av.CodecContext.create("png", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = reduced.width, reduced.height, "pal8", ONCE
    path.write_bytes(b"".join(bytes(packet) for packet in [*encoder.encode(reduced), *encoder.encode(None)]))


def _reduce(frame: av.VideoFrame) -> av.VideoFrame:
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=av.VideoFormat("rgb24"), time_base=ONCE)
    split, palette, use, sink = graph.add("split"), graph.add("palettegen"), graph.add("paletteuse", "dither=none"), graph.add("buffersink")
    source.link_to(split)
    split.link_to(palette, 0, 0)
    split.link_to(use, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    source.push(frame)
    source.push(None)  # the palette is known when all of the picture is
    reduced = sink.pull()
    assert isinstance(reduced, av.VideoFrame)
    return reduced

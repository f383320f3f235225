"""Reads a still picture that may be hostile: JPEG, PNG or WebP, upright as its camera meant it. Runs in the preparation's child process."""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import Bytes2D
from gpuserver.errors import Unreadable, VideoLimitExceeded

MAX_PIXELS = 64_000_000  # decoded in one piece: 192 MB. Phones make 50 million
SIDE = 960  # pixels of the longer side; larger pictures are scaled down
MIN_SIDE = 64

_FORMATS = "jpeg_pipe,webp_pipe"
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_HEAD = struct.Struct(">16sII")  # signature, length and name of the first chunk, then width and height
_BEHIND_TRANSPARENCY = 200.0  # a light grey wall
_HEAD_BYTES = 12

Rgb = NDArray[np.uint8]


def is_still(file: BinaryIO) -> bool:
    """Whether the file begins as a still picture does, also one that cannot be read. Leaves the file at its beginning."""
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    return head.startswith((b"\xff\xd8\xff", _PNG)) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or _is_heif(head)


def read_still(file: BinaryIO) -> Rgb:
    """The picture, uint8 [h, w, 3] RGB: upright (EXIF), even sides, at most SIDE. Raises Unreadable, VideoLimitExceeded."""
    import cv2

    _refuse_by_header(file)
    file.seek(0)
    data = np.frombuffer(file.read(), np.uint8)
    try:
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
        layers = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise Unreadable("The picture cannot be decoded.") from error
    if picture is None or layers is None:
        raise Unreadable("The picture cannot be decoded.")
    if layers.ndim == 3 and layers.shape[2] == 4 and layers.shape[:2] == picture.shape[:2]:
        opaque = layers[..., 3:].astype(np.float32) / (255 if layers.dtype == np.uint8 else 65535)
        picture = np.rint(picture * opaque + _BEHIND_TRANSPARENCY * (1 - opaque)).astype(np.uint8)
    height, width = picture.shape[:2]
    if min(width, height) < MIN_SIDE:
        raise Unreadable(f"A picture of {width}x{height} shows too little.", advice="Send a portrait of at least 512 pixels.")
    scale = min(1.0, SIDE / max(width, height))
    size = max(2, round(width * scale) // 2 * 2), max(2, round(height * scale) // 2 * 2)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def to_i420(rgb: Rgb) -> Bytes2D:
    """The picture [h, w, 3] as I420, BT.601 limited range, [h * 3 / 2, w]."""
    import cv2

    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420), np.uint8)


def _is_heif(head: bytes) -> bool:
    """HEIC of telephones, AVIF: pictures in the container of a video, which would pass for a very short one."""
    return head[4:8] == b"ftyp" and head[8:12] in {b"heic", b"heix", b"mif1", b"avif"}


def _refuse_by_header(file: BinaryIO) -> None:
    """The size is checked before a single pixel is decoded: a file of 100 kB may claim a gigabyte."""
    head = file.read(_PNG_HEAD.size)
    file.seek(0)
    if _is_heif(head):
        raise Unreadable(
            "HEIC and AVIF pictures are not read.", advice="Save the picture as JPEG (on an iPhone: share it, or take a screenshot)."
        )
    if head.startswith(_PNG) and len(head) == _PNG_HEAD.size:
        _, width, height = _PNG_HEAD.unpack(head)  # known without asking the decoder, which would begin to decode
    else:
        from gpuserver.musetalk.preparing.video import open_container

        with open_container(file, _FORMATS, MAX_PIXELS) as container:
            codec = container.streams.video[0].codec_context
            width, height = codec.width, codec.height
    if width * height > MAX_PIXELS:
        raise VideoLimitExceeded(f"The picture of {width}x{height} has more than {MAX_PIXELS // 10**6} million pixels.")
    if not width * height:
        raise Unreadable(f"The picture is damaged, or has more than {MAX_PIXELS // 10**6} million pixels.")

"""Test clips made from the bundled portrait: a head that moves, turns away, hides its mouth, or is not there."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from gpuserver.musetalk.vision.faces import ASSETS, Face, FaceFinder
from gpuserver.musetalk.vision.landmarks import LEFT_CORNER, RIGHT_CORNER

PORTRAIT = ASSETS / "portrait.png"
SAMPLES = Path(__file__).parents[3] / "shared" / "samples"  # real clips, present on some machines only

Rgb = NDArray[np.uint8]


def portrait() -> Rgb:
    """The bundled portrait, uint8 [512, 512, 3] RGB."""
    picture = cv2.imread(str(PORTRAIT))
    assert picture is not None
    return np.ascontiguousarray(picture[:, :, ::-1])


def portrait_face() -> Face:
    face = FaceFinder().find(portrait())
    assert face is not None
    return face


@dataclass(frozen=True)
class Clip:
    """What a clip shows. hidden, faceless: the times [from, to) in seconds where a hand covers the mouth, or nobody is there.

    sway: how far the head moves, as a part of its size; 0 is a still. zoom: size of the head, 1 is that of the portrait.
    """

    seconds: float = 2.0
    fps: Fraction = Fraction(25)
    width: int = 320
    height: int = 240
    sway: float = 0.08
    zoom: float = 1.0
    hidden: tuple[tuple[float, float], ...] = ()
    faceless: tuple[tuple[float, float], ...] = ()
    rotation: int = 0  # degrees counter-clockwise that a player has to turn the stored picture by
    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    options: dict[str, str] = field(default_factory=lambda: {"crf": "16", "preset": "ultrafast"})
    sound: bool = False

    @property
    def times(self) -> list[float]:
        return [index / float(self.fps) for index in range(round(self.seconds * float(self.fps)))]


def write_clip(path: Path, clip: Clip | None = None, *, times: list[float] | None = None) -> Path:
    """Write the clip. times: when each picture is shown, seconds, for a variable frame rate; else the clip's own fps."""
    clip = clip or Clip()
    moments = clip.times if times is None else times
    draw = artist(clip)
    write_video(path, (draw(t) for t in moments), clip, moments)
    return path


def artist(clip: Clip) -> Callable[[float], Rgb]:
    """A function that draws the clip's picture at a time in seconds, upright."""
    source, face = portrait(), portrait_face()
    centre = face.landmarks.mean(axis=0)
    mouth = face.landmarks[[LEFT_CORNER, RIGHT_CORNER]].mean(axis=0)
    # At zoom 1 the face is a third of the picture's height; the portrait's edge is mirrored so that no border shows.
    scale = clip.zoom * clip.height / 3 / face.box.height

    def draw(t: float) -> Rgb:
        if _within(t, clip.faceless):
            return np.full((clip.height, clip.width, 3), 90, np.uint8)
        phase = 2 * math.pi * t / 3  # one sway takes 3 s
        angle = clip.sway * 0.8 * math.sin(phase)  # radians
        size = scale * (1 + clip.sway * 0.5 * math.sin(phase / 2))
        cos, sin = size * math.cos(angle), size * math.sin(angle)
        target = (
            clip.width / 2 + clip.sway * face.box.width * scale * math.sin(phase),
            clip.height / 2 + clip.sway * face.box.height * scale * 0.4 * math.sin(2 * phase),
        )
        matrix = np.array([[cos, -sin, 0], [sin, cos, 0]])
        matrix[:, 2] = np.array(target) - matrix[:, :2] @ centre
        size_out = (clip.width, clip.height)
        picture = np.asarray(cv2.warpAffine(source, matrix, size_out, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT), np.uint8)
        if _within(t, clip.hidden):
            _put_hand(picture, matrix[:, :2] @ mouth + matrix[:, 2], face.box.width * scale)
        return picture

    return draw


def write_video(path: Path, pictures: Iterable[Rgb], clip: Clip, times: Iterable[float]) -> None:
    """Encode upright pictures with the clip's codec and rotation mark; every picture is shown from its own time on."""
    millisecond = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream = cast(VideoStream, container.add_stream(clip.codec, rate=clip.fps, options=dict(clip.options)))
        sideways = clip.rotation % 180 != 0
        stream.width, stream.height = (clip.height, clip.width) if sideways else (clip.width, clip.height)
        stream.pix_fmt = clip.pixel_format
        stream.codec_context.time_base = millisecond
        if clip.rotation:
            stream.set_display_rotation(clip.rotation)
        sound = container.add_stream("aac", rate=48_000) if clip.sound else None
        for picture, t in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(picture, -clip.rotation // 90)), format="rgb24")
            frame.pts, frame.time_base = round(t * 1000), millisecond
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 48_000
            container.mux(sound.encode(silence))
            container.mux(sound.encode(None))


def write_sound_only(path: Path) -> Path:
    """An MP4 file without a video track."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48_000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 48_000
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    return path


def clip_bytes(clip: Clip | None = None) -> bytes:
    """The clip as an MP4 file in memory, for uploads."""
    clip = clip or Clip()
    buffer = io.BytesIO()
    draw = artist(replace(clip))
    with av.open(buffer, "w", format="mp4") as container:
        stream = cast(VideoStream, container.add_stream(clip.codec, rate=clip.fps, options=dict(clip.options)))
        stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, clip.pixel_format
        for t in clip.times:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(draw(t), format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def sample(name: str) -> Path | None:
    """A real clip by its file name, or None where the samples are not there."""
    path = SAMPLES / name
    return path if path.is_file() else None


def _within(t: float, spans: tuple[tuple[float, float], ...]) -> bool:
    return any(start - 1e-6 <= t < stop - 1e-6 for start, stop in spans)


def _put_hand(picture: Rgb, mouth: NDArray[np.float64], face_width: float) -> None:
    """A skin-coloured rectangle over the mouth and the chin, with the edges of four fingers."""
    half = face_width * 0.42
    left, right = round(mouth[0] - half), round(mouth[0] + half)
    top, bottom = round(mouth[1] - half * 0.55), round(mouth[1] + half * 0.75)
    cv2.rectangle(picture, (left, top), (right, bottom), (205, 150, 125), cv2.FILLED)
    for finger in range(1, 4):
        y = top + (bottom - top) * finger // 4
        cv2.line(picture, (left, y), (right, y), (150, 95, 75), max(1, round(face_width / 60)))

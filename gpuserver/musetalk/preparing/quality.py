"""What a teacher should know about the video: figures and plain advice, from what the preparation found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from gpuserver.domain import FPS
from gpuserver.errors import NoUsableFace
from gpuserver.musetalk.vision import landmarks as points
from gpuserver.musetalk.vision.face_track import MIN_MOUTH, Findings, Run
from gpuserver.musetalk.vision.faces import Face
from gpuserver.wire import QualityReport

MIN_RUN = FPS  # frames; a loop of less than a second looks like a tic
SHORT = 5 * FPS  # frames; a shorter loop is seen to repeat
TILTED = math.radians(45)  # from here on the head lies rather than stands
SMALL_MOUTH = 32  # pixels of width; below that the lips are hard to see
PARTED = 0.06  # mouth opening at rest that a viewer notices
BLURRED = 0.012  # face_view.FaceView.sharpness
DARK, BRIGHT = 60, 210  # grey levels
JERK = 0.5  # eye distances per second; the loop turns twice as abruptly
PORTRAIT = "Take a picture of one person from the front, well lit, mouth visible and lips closed."
CALM = "Film 10 seconds with closed lips, looking into the camera."


def usable_run(findings: Findings, seen: Sequence[Face], *, still: bool) -> Run:
    """The part of the clip that becomes the avatar. seen: all faces of the clip.

    Raises NoUsableFace, which says what is in the way and carries the report.
    """
    run = findings.run
    if run is not None and (still or run.length >= MIN_RUN):
        return run
    extra = {"report": _figures(findings, seen, 0, []).model_dump()}
    if findings.without_face == findings.frames:
        raise NoUsableFace(f"No face was found in the {'picture' if still else 'video'}.", advice=PORTRAIT if still else None, extra=extra)
    if findings.too_small > findings.frames // 2:
        advice = "Film from nearer, or with a higher resolution: the face should fill at least a third of the picture's height."
        raise NoUsableFace(f"The face is too small: its mouth is less than {MIN_MOUTH} pixels wide.", advice=advice, extra=extra)
    if still:
        raise NoUsableFace("The picture does not show the whole face from the front.", advice=PORTRAIT, extra=extra)
    longest = run.length / FPS if run is not None else 0.0
    why = _unusable(findings)
    if not why:
        raise NoUsableFace(f"The video shows a face for {longest:.1f} s only; {MIN_RUN / FPS:.0f} s are needed.", extra=extra)
    detail = f"No unbroken second shows the face from the front with a free mouth (longest: {longest:.1f} s; {', '.join(why)})."
    raise NoUsableFace(detail, extra=extra)


def report(findings: Findings, run: Run, faces: Sequence[Face], *, cut_short: bool = False) -> QualityReport:
    """The figures, and advice in plain words. faces: those of the run."""
    advice = list(_standing(findings, faces))
    if cut_short:
        advice.append("Only the first 60 seconds of the video are used.")
    if run.length < findings.frames:
        seconds = f"{run.length / FPS:.1f} of {findings.frames / FPS:.1f} seconds"
        why = _unusable(findings)
        advice.append(f"The longest part without a break is used: {seconds}{' (' + ', '.join(why) + ')' if why else ''}.")
    if findings.frames > 1 and run.length < SHORT:
        advice.append(f"The loop is only {run.length / FPS:.1f} seconds long, so it is seen to repeat: film 5 to 60 seconds.")
    figures = _figures(findings, faces, run.length, advice)
    return figures.model_copy(update={"advice": advice + _advice(figures)})


def _figures(findings: Findings, faces: Sequence[Face], used: int, advice: list[str]) -> QualityReport:
    def median(values: Iterable[float]) -> float:
        known = list(values)
        return float(np.median(known)) if known else 0.0

    return QualityReport(
        source_frames=findings.frames,
        used_frames=used,
        frames_without_face=findings.without_face,
        frames_turned_away=findings.turned_away,
        frames_mouth_covered=findings.covered,
        frames_with_other_faces=findings.with_others,
        brightness=round(findings.brightness),
        sharpness=round(findings.sharpness, 4),
        loop_jerk=round(_jerk(faces), 2) if used else 0.0,
        face_width=round(median(face.box.width for face in faces)),
        mouth_width=round(median(points.mouth_width(face.landmarks) for face in faces)),
        mouth_opening_at_rest=round(median(points.mouth_opening(face.landmarks) for face in faces), 3),
        advice=advice,
    )


def _advice(figures: QualityReport) -> list[str]:
    """What would make a better avatar of this person."""
    checks = (
        (figures.mouth_width < SMALL_MOUTH, f"The mouth is only {figures.mouth_width} pixels wide: film from nearer for clearer lips."),
        (figures.mouth_opening_at_rest > PARTED, f"The lips are parted most of the time. {CALM}"),
        (figures.sharpness < BLURRED, "The face is blurred: clean the lens, let the camera focus on the face, and hold it still."),
        (figures.brightness < DARK, "The face is dark: put a lamp or a window in front of it, not behind."),
        (figures.brightness > BRIGHT, "The face is overexposed: use softer light."),
        (
            figures.frames_with_other_faces > 0,
            f"There is another face{_when(figures)}; the largest in the middle is used. Show one person.",
        ),
        (figures.loop_jerk > JERK, "The head moves where the loop turns: hold it still in the first and the last second."),
    )
    return [sentence for applies, sentence in checks if applies]


def _standing(findings: Findings, faces: Sequence[Face]) -> Iterator[str]:
    """What phones get wrong: pictures that are stored turned, without the note that says so."""
    tilt = float(np.median([abs(points.roll(face.landmarks)) for face in faces]))
    if findings.upside_down:
        yield "The face is upside down: turn the video or picture upright and add it again."
    elif tilt > TILTED:
        yield "The face lies on its side: turn the video or picture upright and add it again."


def _when(figures: QualityReport) -> str:
    """For how long the other face is seen; nothing of a still picture."""
    return f" for {figures.frames_with_other_faces / FPS:.1f} s" if figures.source_frames > 1 else ""


def _jerk(faces: Sequence[Face]) -> float:
    """How fast the head moves at the faster end of the loop, in eye distances per second."""
    reach = min(3, len(faces) - 1)  # frames: over one frame alone it would be noise
    if reach < 1:
        return 0.0
    steady = list(points.STEADY)
    ends = ((faces[0], faces[reach]), (faces[-1 - reach], faces[-1]))
    moved = (float(np.linalg.norm(b.landmarks[steady] - a.landmarks[steady], axis=1).mean()) for a, b in ends)
    return max(moved) / max(points.eye_distance(faces[0].landmarks), 1.0) * FPS / reach


def _unusable(findings: Findings) -> list[str]:
    """Why frames cannot be used, with how many seconds of them."""
    reasons = (
        ("no face", findings.without_face),
        ("head turned away", findings.turned_away),
        ("mouth covered", findings.covered),
        ("face too small", findings.too_small),
    )
    return [f"{reason}: {frames / FPS:.1f} s" for reason, frames in reasons if frames]

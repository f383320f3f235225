"""What a teacher should know about the video: figures and plain advice, from what the preparation found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpuserver.domain import FPS, Floats
from gpuserver.errors import NoUsableFace
from gpuserver.musetalk import landmarks as points
from gpuserver.musetalk.face_track import MIN_MOUTH, Findings, Run
from gpuserver.musetalk.faces import Face
from gpuserver.wire import QualityReport

MIN_RUN = FPS  # frames; a loop of less than a second looks like a tic
SMALL_MOUTH = 32  # pixels of width; below that the lips are hard to see
PARTED = 0.06  # mouth opening at rest that a viewer notices


def usable_run(findings: Findings, *, still: bool) -> Run:
    """The part of the clip that becomes the avatar. Raises NoUsableFace, which says what is in the way."""
    run = findings.run
    if run is not None and (still or run.length >= MIN_RUN):
        return run
    if findings.without_face == findings.frames:
        raise NoUsableFace("No face was found in the video.")
    if findings.too_small > findings.frames // 2:
        advice = "Film from nearer, or with a higher resolution: the face should fill at least a third of the picture's height."
        raise NoUsableFace(f"The face is too small: its mouth is less than {MIN_MOUTH} pixels wide.", advice=advice)
    longest = run.length / FPS if run is not None else 0.0
    why = _unusable(findings)
    if not why:
        raise NoUsableFace(f"The video shows a face for {longest:.1f} s only; {MIN_RUN / FPS:.0f} s are needed.")
    raise NoUsableFace(f"No unbroken second shows the face from the front with a free mouth (longest: {longest:.1f} s; {', '.join(why)}).")


def report(findings: Findings, run: Run, faces: Sequence[Face], openings: Floats, *, cut_short: bool, apply_blur: bool) -> QualityReport:
    """The figures of the used part, and advice in plain words. openings: of the used frames, in units of the mouth's width."""
    mouth_width = float(np.median([points.mouth_width(face.landmarks) for face in faces]))
    at_rest = float(np.median(openings))
    advice = []
    if cut_short:
        advice.append("Only the first 60 seconds of the video are used.")
    if run.length < findings.frames:
        seconds = f"{run.length / FPS:.1f} of {findings.frames / FPS:.1f} seconds"
        why = _unusable(findings)
        advice.append(f"The longest part without a break is used: {seconds}{' (' + ', '.join(why) + ')' if why else ''}.")
    if mouth_width < SMALL_MOUTH:
        advice.append(f"The mouth is only {mouth_width:.0f} pixels wide; film from nearer for clearer lips.")
    if at_rest > PARTED:
        advice.append("The lips are parted most of the time; a video with closed lips looks calmer.")
    if apply_blur:
        advice.append("apply_blur is stored, but this version does not blur the background yet.")
    return QualityReport(
        source_frames=findings.frames,
        used_frames=run.length,
        frames_without_face=findings.without_face,
        frames_turned_away=findings.turned_away,
        frames_mouth_covered=findings.covered,
        face_width=round(float(np.median([face.box.width for face in faces]))),
        mouth_width=round(mouth_width),
        mouth_opening_at_rest=round(at_rest, 3),
        advice=advice,
    )


def _unusable(findings: Findings) -> list[str]:
    """Why frames cannot be used, with how many seconds of them."""
    reasons = (
        ("no face", findings.without_face),
        ("head turned away", findings.turned_away),
        ("mouth covered", findings.covered),
        ("face too small", findings.too_small),
    )
    return [f"{reason}: {frames / FPS:.1f} s" for reason, frames in reasons if frames]

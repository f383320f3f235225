"""/v1/avatars and /v1/jobs as OpenAPI describes them. The same in both processes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

from gpuserver.errors import (
    AvatarDamaged,
    AvatarExists,
    AvatarInUse,
    AvatarNotFound,
    AvatarRoomFull,
    Cancelled,
    DiskFull,
    InvalidAvatarId,
    JobEnded,
    JobNotFound,
    NotWritable,
    NoUsableFace,
    TooManyJobs,
    Unreadable,
    VideoLimitExceeded,
    VideoNotFound,
    VideoPathForbidden,
    VideoUrlRefused,
)
from gpuserver.web.operation import (
    EVENT_STREAM,
    EVENTS,
    FILE_CONTENT,
    FLAG,
    FORCE,
    FORM,
    IF_NONE_MATCH,
    RANGE,
    REPLACE,
    Answer,
    Body,
    Error,
    Operation,
    Operations,
    Parameter,
    file_answers,
    no_content,
)
from gpuserver.wire import AvatarCreated, AvatarId, AvatarInfo, AvatarList, AvatarProfile, CreateAvatar, Job, QualityReport, Reference

AVATARS, JOBS = "Avatars", "Jobs"
CREATION_ERRORS: tuple[Error, ...] = (
    InvalidAvatarId,
    AvatarExists,
    Unreadable,
    NoUsableFace,
    VideoLimitExceeded,
    TooManyJobs,
    Cancelled,
    DiskFull,
    AvatarRoomFull,
    NotWritable,
)
ONE_AVATAR_ERRORS: tuple[Error, ...] = (InvalidAvatarId, AvatarNotFound, AvatarDamaged)

INTERIM = (
    "While the client waits, `102 Processing` is sent every second. Python's http.client, and requests with it, takes that for the "
    "answer: they are recognised by their User-Agent; a client of theirs with another one should send `Prefer: respond-async`."
)
_PREFER = Parameter("Prefer", "header", "respond-async: do not wait; the answer is 202 with a job (RFC 7240).")
_DETAIL = Parameter("detail", "query", "true gives all that is known of each avatar instead of its id.", FLAG)

_REPORT = QualityReport(
    source_frames=250, used_frames=248, frames_without_face=2, brightness=141, sharpness=0.031, face_width=210, mouth_width=74,
    mouth_opening_at_rest=0.02,
)  # fmt: skip
_INFO = AvatarInfo(
    avatar_id="ms_lee", tutor_id="7", frames=248, width=512, height=512, seconds=9.92, bytes=97_517_568,
    created_at=datetime(2026, 3, 1, 9, 30, tzinfo=UTC), avatar_path="/srv/gpuserver/data/avatars/ms_lee", quality=_REPORT,
)  # fmt: skip
CREATED = AvatarCreated(avatar_id="ms_lee", avatar_path="/srv/gpuserver/data/avatars/ms_lee", message="Avatar created successfully")
_JOB = Job(job_id="8d0e6d1f5a4b", avatar_id="ms_lee", state="running", progress=0.4, stage="analysing", report=_REPORT)


class AvatarUpload(AvatarProfile):
    """The form of POST /v1/avatars/upload; its fields may come in any order."""

    avatar_id: AvatarId
    apply_blur: bool = False
    tutor_id: Reference | None = None
    video_file: Annotated[bytes, Field(description="A video, or a picture.")]


_CREATION_ANSWERS = (
    Answer("The avatar is ready.", AvatarCreated, CREATED, 201, headers={"Location": "The avatar."}),
    Answer(
        "With `Prefer: respond-async`: it is being made.",
        Job,
        _JOB,
        202,
        headers={"Location": "The job.", "Preference-Applied": "respond-async."},
    ),
)

AVATAR_OPERATIONS: Operations = {
    "POST /v1/avatars": Operation(
        AVATARS,
        "Create an avatar from a video or picture on the server",
        _CREATION_ANSWERS,
        f"Takes about as long as the video lasts. {INTERIM}",
        Body(
            CreateAvatar,
            {
                "video": {"avatar_id": "ms_lee", "video_path": "/srv/videos/ms_lee.mp4", "tutor_id": 7},
                "blurred": {"avatar_id": "mr_wang", "video_path": "wang.mp4", "apply_blur": True},
            },
        ),
        (REPLACE, _PREFER),
        (*CREATION_ERRORS, VideoUrlRefused, VideoPathForbidden, VideoNotFound),
    ),
    "POST /v1/avatars/upload": Operation(
        AVATARS,
        "Create an avatar from an uploaded video or picture",
        _CREATION_ANSWERS,
        f"The file is streamed to disk; at most MAX_UPLOAD_MB. Compressed bodies are not taken. {INTERIM}",
        Body(AvatarUpload, {"video": {"avatar_id": "ms_lee", "tutor_id": "7", "video_file": FILE_CONTENT}}, (FORM,)),
        (REPLACE, _PREFER),
        CREATION_ERRORS,
    ),
    "GET /v1/avatars": Operation(
        AVATARS,
        "List the avatars",
        (Answer("Their ids, sorted.", AvatarList, AvatarList(total=2, avatars=["demo", "ms_lee"])),),
        parameters=(_DETAIL,),
        errors=(AvatarDamaged,),
    ),
    "GET /v1/avatars/{avatar_id}": Operation(
        AVATARS, "Show an avatar", (Answer("All that is known.", AvatarInfo, _INFO),), errors=ONE_AVATAR_ERRORS
    ),
    "GET /v1/avatars/{avatar_id}/preview": Operation(
        AVATARS,
        "A picture of the avatar",
        file_answers("image/jpeg", "A JPEG."),
        parameters=(IF_NONE_MATCH, RANGE),
        errors=ONE_AVATAR_ERRORS,
    ),
    "GET /v1/avatars/{avatar_id}/idle.mp4": Operation(
        AVATARS,
        "The avatar's idle loop as a film",
        file_answers("video/mp4", "The loop, forth and back. It is made when it is first asked for."),
        parameters=(IF_NONE_MATCH, RANGE),
        errors=(*ONE_AVATAR_ERRORS, TooManyJobs, Cancelled, DiskFull, NotWritable),
    ),
    "DELETE /v1/avatars/{avatar_id}": Operation(
        AVATARS,
        "Delete an avatar",
        (no_content("It is gone."),),
        parameters=(FORCE,),
        errors=(*ONE_AVATAR_ERRORS, AvatarInUse, NotWritable),
    ),
    "GET /v1/jobs/{job_id}": Operation(JOBS, "Show a job", (Answer("How far it is.", Job, _JOB),), errors=(JobNotFound,)),
    "GET /v1/jobs/{job_id}/events": Operation(
        JOBS,
        "Follow a job",
        (
            Answer(
                "An event `job` with the whole job now and after every change.",
                EVENT_STREAM,
                "event: job\ndata: {…}\n\n",
                content_type=EVENTS,
            ),
        ),
        "Server-sent events. The stream ends with the job.",
        errors=(JobNotFound,),
    ),
    "DELETE /v1/jobs/{job_id}": Operation(JOBS, "Cancel a job", (no_content("Nothing is left of it."),), errors=(JobNotFound, JobEnded)),
}

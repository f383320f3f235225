"""Everything that can go wrong on purpose, as one tree.

GpuserverError
├── InvalidInput (400)
│   ├── InvalidAvatarId          an id that is not 1-64 of A-Z a-z 0-9 _ -
│   ├── VideoUrlRefused          video_path is a URL
│   └── InvalidSdp               an offer that cannot be answered
├── Unauthorized (401)           a missing or wrong token
│   └── KeyRequired              a missing or wrong API key
├── Forbidden (403)
│   ├── VideoPathForbidden       outside VIDEO_DIRS
│   └── ForeignOrigin            a web page of another site calls, or calls by a name that is not ours
├── NotFound (404)
│   ├── AvatarNotFound, VideoNotFound, SessionNotFound, JobNotFound
├── MethodNotAllowed (405)       the address knows other methods
├── TooSlow (408)                a request body that trickles in
├── Conflict (409)
│   ├── AvatarExists, AvatarInUse
│   └── JobEnded                 what was to be cancelled has come to its end
├── PreconditionFailed (412)     an If-Match that does not match
├── TooLarge (413)               a limit on bytes
├── ExpectationFailed (417)      an Expect header other than 100-continue
├── Unreadable (415)             not a video or picture that can be decoded
├── UnsupportedMediaType (415)   a Content-Type or Content-Encoding that is not taken
├── Unprocessable (422)
│   ├── NoUsableFace, VideoLimitExceeded
├── AvatarDamaged (500)          an avatar folder that does not match its own description
├── DeviceLost (500)             the GPU, or the driver below it, is gone for this process
├── DeviceFull (500)             the GPU has no memory left, not even for the least work
├── NoDevice (503)               there is no GPU for MuseTalk
├── WeightsUnusable (503)        MuseTalk's weight files cannot be used
│   ├── WeightsMissing           a file is not there
│   └── WeightsDamaged           truncated, of another model or version, or not plain tensors
├── UpgradeRequired (426)        an address that speaks WebSocket only
├── Full (429)                   every session slot is taken
├── TooManyWaiting (429)         a session's queue of questions is full
├── TooManyJobs (429)            the queue of creations, or of films, is full
├── RateLimited (429)            more calls than RATE_LIMIT
├── Cancelled (499)              the caller went away or cancelled the job
├── UpstreamFailed (502)
│   ├── LanguageModelFailed
│   │   └── UnknownModel (422)   a request names a model that is not there
│   ├── LipSyncFailed            the gateway's lip-sync service is down or answers what it should not
│   └── VoiceFailed
│       ├── Unspeakable (422)    nothing here can say this text
│       └── VoiceUnreachable     the service that speaks does not answer
├── Unavailable (503)            the media server is down
├── TooManyConnections (503)     the server holds as many as it can
├── NoFreePort (503)             every port of WEBRTC_PORT_MIN to WEBRTC_PORT_MAX is in use
├── NoLanguageModel (503)        nothing that could answer a question is reachable
├── DiskFull (507)
│   └── AvatarRoomFull           AVATAR_MAX_DISK_GB is used up
├── NotWritable (507)            a folder that the server may not write to
└── CannotStart                  a server refuses to start; never sent over HTTP

Each class knows its HTTP status and its problem type (RFC 9457). `detail` says what happened, `advice` what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

Extra = Mapping[str, object]  # what JSON can say


class GpuserverError(Exception):
    """The root. `detail` and `advice` are plain sentences for the person who reads the answer; `extra` are further problem members."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Something went wrong in the server"
    default_advice: ClassVar[str] = "Try again; if it happens again, look into the server's log."

    def __init__(self, detail: str, *, advice: str | None = None, retry_after: int | None = None, extra: Extra | None = None):
        super().__init__(detail)
        self.detail = detail
        self.advice = self.default_advice if advice is None else advice
        self.retry_after = retry_after  # whole seconds, becomes the Retry-After header
        self.extra: Extra = dict(extra or {})

    def problem(self) -> dict[str, object]:
        """The RFC 9457 problem object of this error."""
        return {
            "type": f"urn:gpuserver:problem:{self.slug}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "advice": self.advice,
            **self.extra,
        }


class InvalidInput(GpuserverError):
    status, slug, title = 400, "invalid-input", "The request is not valid"
    default_advice = "Correct the named field and send the request again."


class InvalidAvatarId(InvalidInput):
    slug, title = "invalid-avatar-id", "Not a valid avatar_id"
    default_advice = "Use 1 to 64 characters of A-Z a-z 0-9 _ and -."


class VideoUrlRefused(InvalidInput):
    slug, title = "video-url-refused", "video_path must be a file on this server"
    default_advice = "Download the video and upload it to /v1/avatars/upload, or name a file under VIDEO_DIRS."


class InvalidSdp(InvalidInput):
    slug, title = "invalid-sdp", "The WebRTC offer cannot be answered"
    default_advice = 'Send {"sdp", "type": "offer"} as RTCPeerConnection.createOffer() made it, with audio and video to receive.'


class Unauthorized(GpuserverError):
    status, slug, title = 401, "unauthorized", "The token is missing or wrong"
    default_advice = "Send the session's engine_token as 'Authorization: Bearer …' or as ?token=…."


class KeyRequired(Unauthorized):
    slug, title = "key-required", "The API key is missing or wrong"
    default_advice = "Send one of the server's API_KEYS as 'Authorization: Bearer …' or as 'X-API-Key: …'."


class Forbidden(GpuserverError):
    status, slug, title = 403, "forbidden", "This is not allowed"
    default_advice = "Ask whoever runs this server."


class VideoPathForbidden(Forbidden):
    slug, title = "video-path-forbidden", "video_path lies outside VIDEO_DIRS"
    default_advice = "Move the video under one of VIDEO_DIRS, add its folder to VIDEO_DIRS, or upload the video."


class ForeignOrigin(Forbidden):
    slug, title = "foreign-origin", "The call comes from a web page of another site"
    default_advice = "Open the server's own page, set PUBLIC_URL to the address that browsers use, or list the site in CORS_ORIGINS."


class NotFound(GpuserverError):
    status, slug, title = 404, "not-found", "There is no such thing here"
    default_advice = "Check the address."


class AvatarNotFound(NotFound):
    slug, title = "avatar-not-found", "No such avatar"
    default_advice = "GET /v1/avatars lists the avatars there are."


class VideoNotFound(NotFound):
    slug, title = "video-not-found", "No such video"
    default_advice = "Check video_path; it names a file on the server."


class SessionNotFound(NotFound):
    slug, title = "session-not-found", "No such session"
    default_advice = "Sessions end when idle or when the media server restarts. Create a new one with POST /v1/sessions."


class JobNotFound(NotFound):
    slug, title = "job-not-found", "No such job"
    default_advice = "Jobs are forgotten some time after they end. GET /v1/avatars shows whether the avatar exists."


class MethodNotAllowed(GpuserverError):
    status, slug, title = 405, "method-not-allowed", "The address does not know this method"
    default_advice = "Use one of the methods named in the Allow header."


class TooSlow(GpuserverError):
    status, slug, title = 408, "too-slow", "The request body arrives too slowly"
    default_advice = "Send it again over a faster connection."


class Conflict(GpuserverError):
    status, slug, title = 409, "conflict", "The request conflicts with what is there"
    default_advice = "Look at the current state and decide."


class AvatarExists(Conflict):
    slug, title = "avatar-exists", "An avatar with this id exists"
    default_advice = "Choose another avatar_id, or add ?replace=true to swap it atomically."


class AvatarInUse(Conflict):
    slug, title = "avatar-in-use", "A session is showing this avatar"
    default_advice = "End the sessions first, or add ?force=true to end them now."


class JobEnded(Conflict):
    slug, title = "job-ended", "The job is done already"
    default_advice = "Delete the avatar that it made: DELETE /v1/avatars/{avatar_id}."


class PreconditionFailed(GpuserverError):
    status, slug, title = 412, "precondition-failed", "What the request is meant for has changed"
    default_advice = "Send it without If-Match, or begin anew."


class TooLarge(GpuserverError):
    status, slug, title = 413, "too-large", "The request is too large"
    default_advice = "Send less: shorten or compress the video."


class Unreadable(GpuserverError):
    status, slug, title = 415, "unreadable-video", "This is not a video or picture that can be read"
    default_advice = "Send a video (MP4, MOV, MKV, WebM, AVI, GIF), for example H.264 in MP4, or a picture (JPEG, PNG, WebP)."


class UnsupportedMediaType(GpuserverError):
    status, slug, title = 415, "unsupported-media-type", "The body's type or encoding is not taken"
    default_advice = "Send JSON as application/json and files as multipart/form-data, without Content-Encoding."


class Unprocessable(GpuserverError):
    status, slug, title = 422, "unprocessable", "The request was understood but cannot be carried out"
    default_advice = "Change what is named and send it again."


class NoUsableFace(Unprocessable):
    slug, title = "no-usable-face", "No usable face in the video"
    default_advice = "Film one person from the front, well lit, mouth visible and lips closed, for 5 to 60 seconds."


class VideoLimitExceeded(Unprocessable):
    slug, title = "video-limit-exceeded", "The video exceeds a limit"
    default_advice = "Send 5 to 60 seconds at up to 1920x1080."


class AvatarDamaged(GpuserverError):
    slug, title = "avatar-damaged", "The avatar's files are damaged"
    default_advice = "Delete the avatar and create it again."


class DeviceLost(GpuserverError):
    slug, title = "device-lost", "The GPU does not answer any more"
    default_advice = (
        "The server goes on with the CPU engine. Look at the driver's messages (dmesg, nvidia-smi) and restart the media server."
    )


class DeviceFull(GpuserverError):
    slug, title = "device-full", "The GPU's memory is full"
    default_advice = "End sessions, or other programs on the GPU; nvidia-smi lists them."


class NoDevice(GpuserverError):
    status, slug, title = 503, "no-device", "There is no GPU for MuseTalk"
    default_advice = "Check nvidia-smi and CUDA_VISIBLE_DEVICES, and install the CUDA build of torch; or set ENABLE_MUSETALK=false."


class WeightsUnusable(GpuserverError):
    status, slug, title = 503, "weights-unusable", "MuseTalk's weight files cannot be used"
    default_advice = "`gpuserver models check` says what is wrong, `gpuserver models download` gets the official files."


class WeightsMissing(WeightsUnusable):
    slug, title = "weights-missing", "A weight file of MuseTalk is missing"


class WeightsDamaged(WeightsUnusable):
    slug, title = "weights-damaged", "A weight file of MuseTalk is damaged or of another model"


class ExpectationFailed(GpuserverError):
    status, slug, title = 417, "expectation-failed", "The expectation cannot be met"
    default_advice = "Send no Expect header, or Expect: 100-continue."


class UpgradeRequired(GpuserverError):
    status, slug, title = 426, "upgrade-required", "This address speaks WebSocket only"
    default_advice = "Open it as a WebSocket: ws(s)://…/ws/{session_id}?token={engine_token}."


class Full(GpuserverError):
    status, slug, title = 429, "sessions-full", "Every session slot is taken"
    default_advice = "Wait for a session to end, or raise MAX_SESSIONS."


class TooManyWaiting(GpuserverError):
    status, slug, title = 429, "too-many-waiting", "Too many questions wait for their answer"
    default_advice = 'Wait for an answer to end, or ask without "queue": true, which replaces what is being said.'


class TooManyJobs(GpuserverError):
    status, slug, title = 429, "too-many-jobs", "Too many avatars or films wait to be made"
    default_advice = "Wait until one of them has been made; GET /v1/jobs/{job_id} shows how far a job is."


class RateLimited(GpuserverError):
    status, slug, title = 429, "rate-limited", "Too many calls"
    default_advice = "Wait as long as Retry-After says. Whoever runs the server may raise RATE_LIMIT."


class Cancelled(GpuserverError):
    status, slug, title = 499, "cancelled", "The work was cancelled"
    default_advice = "Start it again if it was not meant to be cancelled."


class UpstreamFailed(GpuserverError):
    status, slug, title = 502, "upstream-failed", "A service this server depends on failed"
    default_advice = "Check that the service runs and try again."


class LanguageModelFailed(UpstreamFailed):
    slug, title = "language-model-failed", "The language model did not answer"
    default_advice = "Check that Ollama (OLLAMA_BASE_URL) or the OpenAI-compatible server (OPENAI_BASE_URL) runs and has the model."


class UnknownModel(LanguageModelFailed):
    status, slug, title = 422, "unknown-model", "There is no such language model"
    default_advice = "GET /v1/models and GET /api/chat/models list the models there are."


class LipSyncFailed(UpstreamFailed):
    slug, title = "lip-sync-service-failed", "The lip-sync service did not answer as it should"
    default_advice = "Check that the media server runs where LIPSYNC_SERVICE_URL says, and try again."


class VoiceFailed(UpstreamFailed):
    slug, title = "voice-failed", "The sentence could not be spoken"
    default_advice = "The text is shown; choose a voice that speaks this language (TTS, TTS_VOICE)."


class Unspeakable(VoiceFailed):
    status, slug, title = 422, "unspeakable", "No voice here can say this text"
    default_advice = "Choose a voice that speaks its language: GET /v1/voices lists them."


class VoiceUnreachable(VoiceFailed):
    slug, title = "voice-unreachable", "The service that speaks does not answer"
    default_advice = "The text is shown; check the network, or set TTS=hibari to speak English without it."


class Unavailable(GpuserverError):
    status, slug, title = 503, "media-server-down", "The media server does not answer"
    default_advice = "It is restarted by itself; try again in a few seconds."


class NoLanguageModel(GpuserverError):
    status, slug, title = 503, "no-language-model", "No language model is reachable"
    default_advice = "Start Ollama (OLLAMA_BASE_URL) or an OpenAI-compatible server (OPENAI_BASE_URL). Until then questions are repeated."


class TooManyConnections(GpuserverError):
    status, slug, title = 503, "too-many-connections", "The server holds as many connections as it can"
    default_advice = "Close connections that are not needed and try again in a few seconds."


class NoFreePort(GpuserverError):
    status, slug, title = 503, "no-free-port", "No port is free for another WebRTC connection"
    default_advice = "Widen WEBRTC_PORT_MIN to WEBRTC_PORT_MAX, or set WEBRTC_UDP_PORT, which all sessions share."


class DiskFull(GpuserverError):
    status, slug, title = 507, "disk-full", "The disk is full"
    default_advice = "Delete avatars that are not needed, or give AVATARS_DIR more room."


class AvatarRoomFull(DiskFull):
    slug, title = "avatar-room-full", "Avatars may take no more room"
    default_advice = "Delete avatars that are not needed, or raise AVATAR_MAX_DISK_GB."


class NotWritable(GpuserverError):
    status, slug, title = 507, "not-writable", "The server may not write to its folder"
    default_advice = "Let the user who runs this write there, mount the disk for writing, or name another folder (AVATARS_DIR)."


class CannotStart(GpuserverError):
    slug, title = "cannot-start", "The server cannot start"
    default_advice = "Correct the setting and start again."

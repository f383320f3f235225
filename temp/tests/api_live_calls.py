"""Makes a call meet what is there: the identifiers of living sessions, players, jobs and avatars in the place of invented ones."""

from __future__ import annotations

import io
import re
import wave
from typing import Any

from api_world import FACE, INTERNAL, World
from schemathesis import Case

AnyCase = Case[Any]
CREATED_BY = {"/v1/avatars": "avatar_id", "/v1/avatars/upload": "avatar_id", "/api/avatar/create": "name"}
FILES = {"/v1/avatars/upload": "video_file", "/api/avatar/create": "prompt_face"}
DEMO = "demo"
FORMS_WITH_A_NAME = {"/api/avatar/start", "/api/avatar/delete"}


def named_by(case: AnyCase) -> list[Any]:
    """All values that may name an avatar."""
    form = case.body if isinstance(case.body, dict) else {}
    return [*(case.path_parameters or {}).values(), *(case.query or {}).values(), *form.values()]


def credentials(label: str, world: World) -> dict[str, str]:
    """The headers that open the call, but for a session's engine_token: the media server's own calls need the internal secret."""
    path = label.split(" ")[1]
    is_internal = path.startswith("/v1/sessions") and not world.prefix and not path.endswith(("/offer", "/ice"))
    return INTERNAL if is_internal else {}


def example_of(document: dict[str, Any], label: str) -> dict[str, Any]:
    """The call that the document shows, for APIOperation.Case."""
    method, path = label.split(" ")
    operation = document["paths"][path][method.lower()]
    call: dict[str, Any] = {
        "path_parameters": {each["name"]: each["example"] for each in operation.get("parameters", []) if each["in"] == "path"}
    }
    if "requestBody" in operation:
        media_type, content = next(iter(operation["requestBody"]["content"].items()))
        call |= {"media_type": media_type, "body": next(iter(content["examples"].values()))["value"]}
    return call


def enliven(label: str, case: AnyCase, world: World, *, is_meant: bool = True) -> None:
    """Put in what is there. is_meant: the call is to succeed, so that its files are real as well."""
    method, path = label.split(" ")
    parameters = dict(case.path_parameters or {})
    if "session_id" in parameters:
        _name_session(method, path, parameters, case, world)
    if "job_id" in parameters:
        parameters["job_id"] = world.job(to_be_cancelled=method == "DELETE")
    for name in {"avatar_id", "name"} & set(parameters):
        parameters[name] = world.spare_avatar() if method == "DELETE" else DEMO
    if "sessionid" in parameters:
        parameters["sessionid"] = world.film()
    if parameters:
        case.path_parameters = parameters
    case.body = _live_body(method, path, case.body, world, is_meant=is_meant)


def _name_session(method: str, path: str, parameters: dict[str, Any], case: AnyCase, world: World) -> None:
    if "/whep/" in path:
        parameters["session_id"] = world.player()
        if method == "DELETE":
            world.forget_player()
        return
    session = world.session(to_be_ended=method == "DELETE")
    parameters["session_id"] = session["session_id"]
    if path.endswith(("/offer", "/ice")) or path.startswith("/ws/"):
        case.headers["Authorization"] = f"Bearer {session['engine_token']}"


def _live_body(method: str, path: str, body: Any, world: World, *, is_meant: bool) -> Any:
    if isinstance(body, dict):
        body = dict(body)
        if "sessionid" in body:
            body["sessionid"] = str(world.talker()) if path.endswith("/humanaudio") else world.talker()
        if "sdp" in body:
            body["sdp"] = world.sdp
        if path.endswith("/humanaudio") and is_meant:
            body["file"] = _sound()
        if path == "/v1/sessions" and "avatar_id" in body:
            body["avatar_id"] = DEMO
        if path in FORMS_WITH_A_NAME:
            body["avatar_name"] = world.spare_avatar() if method == "DELETE" else DEMO
        if path in CREATED_BY and is_meant:
            body[CREATED_BY[path]] = world.new_name()
            body |= {FILES[path]: FACE.read_bytes()} if path in FILES else {"video_path": str(world.server.folder / "videos/face.png")}
    elif isinstance(body, str) and path.endswith("/whep/{avatar_id}"):
        return world.sdp
    elif isinstance(body, str) and is_meant:  # candidates belong to the offer that they follow
        return re.sub("ice-ufrag:.*", re.search("ice-ufrag:.*", world.sdp)[0].strip(), body)  # type: ignore[index]
    return body


def _sound() -> bytes:
    """A tenth of a second of silence, as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        sound.writeframes(bytes(3200))
    return file.getvalue()

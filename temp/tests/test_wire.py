"""What crosses the network: strict where a mistake would hide, tolerant where existing clients send more."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from gpuserver.gateway.wire import ChatRequest
from gpuserver.media.speech_service import SpeechRequest
from gpuserver.messages import Ask, ClientMessage, Configure, LegacyText, Say, WebRtcIceCandidate
from gpuserver.player_wire import Human, LiveTalkingOffer, SetAudiotype, Spoken
from gpuserver.wire import AvatarInfo, CreateAvatar, CreateSession, check_avatar_id

CLIENT_MESSAGE: TypeAdapter[ClientMessage] = TypeAdapter(ClientMessage)


@pytest.mark.parametrize("avatar_id", ["a", "avatar_tutor_13", "A-1", "x" * 64])
def test_an_avatar_id_is_letters_digits_underscore_and_hyphen(avatar_id: str) -> None:
    assert check_avatar_id(avatar_id) == avatar_id


@pytest.mark.parametrize("avatar_id", ["", "x" * 65, "a/b", "..", ".", "a.b", "a\0", "a b", "ä", "a\n", "头像", "%2e"])
def test_anything_else_is_not_an_avatar_id(avatar_id: str) -> None:
    with pytest.raises(ValueError, match="1 to 64"):
        check_avatar_id(avatar_id)


@given(st.text())
def test_no_avatar_id_leaves_its_folder(text: str) -> None:
    try:
        avatar_id = check_avatar_id(text)
    except ValueError:
        return
    assert "/" not in avatar_id
    assert not avatar_id.startswith(".")


@pytest.mark.parametrize(
    "body",
    [
        '{"avatar_id": 1, "video_path": "/tmp/a.mp4"}',
        '{"avatar_id": "a", "video_path": ["/tmp/a.mp4"]}',
        '{"avatar_id": "a", "video_path": ""}',
        '{"avatar_id": "a", "video_path": "/tmp/a.mp4", "apply_blur": "false"}',
        '{"avatar_id": "a", "video_path": "/tmp/a.mp4", "apply_blur": 1}',
        '{"avatar_id": "a", "video_path": "/tmp/a.mp4", "tutor_id": false}',
        '{"avatar_id": "a"}',
        "[]",
        "null",
        "",
        "[" * 100_000,
    ],
)
def test_create_avatar_takes_no_wrong_types(body: str) -> None:
    with pytest.raises(ValidationError):
        CreateAvatar.model_validate_json(body)


def test_ids_of_people_may_be_numbers_and_are_kept_as_text() -> None:
    session = CreateSession.model_validate_json('{"tutor_id": 7, "student_id": "s1", "unknown": {}}')
    assert (session.tutor_id, session.student_id, session.avatar_id) == ("7", "s1", None)


def test_history_is_limited_to_50_items() -> None:
    items = ",".join(['{"role": "user", "content": "x"}'] * 51)
    with pytest.raises(ValidationError, match="at most 50"):
        CreateSession.model_validate_json(f'{{"tutor_id": "1", "student_id": "1", "history": [{items}]}}')


def test_client_messages_are_told_apart_by_their_type() -> None:
    assert isinstance(CLIENT_MESSAGE.validate_json('{"type": "ask", "text": "hi", "queue": true}'), Ask)
    assert isinstance(CLIENT_MESSAGE.validate_json('{"type": "text_webrtc", "content": "hi", "more": 1}'), LegacyText)
    end = CLIENT_MESSAGE.validate_json('{"type": "webrtc_ice_candidate", "candidate": null}')
    assert isinstance(end, WebRtcIceCandidate)
    assert end.candidate is None


@pytest.mark.parametrize(
    "message", ["{}", '{"type": "shout"}', '{"type": "ask"}', '{"type": "ask", "text": 5}', '{"type": "ask", "text": "a", "x": 1}']
)
def test_an_unknown_client_message_is_refused(message: str) -> None:
    with pytest.raises(ValidationError):
        CLIENT_MESSAGE.validate_json(message)


def test_avatar_info_survives_its_own_json() -> None:
    info = AvatarInfo.model_validate_json(
        '{"avatar_id": "a", "frames": 1, "width": 2, "height": 2, "seconds": 0.04, "created_at": "2026-01-02T03:04:05Z", "quality":'
        '{"source_frames": 1, "used_frames": 1, "frames_without_face": 0, "face_width": 1, "mouth_width": 1, "mouth_opening_at_rest": 0.0}}'
    )
    assert AvatarInfo.model_validate_json(info.model_dump_json()) == info


# Each request that has fields that may be left out, without them.
SHORTEST: list[tuple[type[BaseModel], dict[str, object]]] = [
    (CreateAvatar, {"avatar_id": "a", "video_path": "/tmp/a.mp4"}),
    (CreateSession, {"tutor_id": 1, "student_id": "s1"}),
    (ChatRequest, {"message": "hi"}),
    (SpeechRequest, {"input": "hi"}),
    (LiveTalkingOffer, {"sdp": "v=0", "type": "offer"}),
    (Human, {"sessionid": 1, "text": "hi", "type": "echo"}),
    (SetAudiotype, {"sessionid": 1, "audiotype": 1}),
    (Spoken, {"text": "hi"}),
    (Ask, {"type": "ask", "text": "hi"}),
    (Say, {"type": "say", "text": "hi"}),
    (Configure, {"type": "configure"}),
]


@pytest.mark.parametrize(("model", "body"), SHORTEST)
def test_null_stands_for_what_may_be_left_out_and_for_nothing_else(model: type[BaseModel], body: dict[str, object]) -> None:
    nulls = dict.fromkeys(model.model_fields.keys() - body.keys())
    assert nulls
    assert model.model_validate_json(json.dumps(nulls | body)) == model.model_validate_json(json.dumps(body))
    with pytest.raises(ValidationError):
        model.model_validate_json(json.dumps(body | dict.fromkeys(body)))

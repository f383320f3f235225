"""Asks the media server of this machine which avatars its sessions show at this moment."""

from __future__ import annotations

import http.client
from dataclasses import dataclass

from pydantic import ValidationError

from gpuserver.config import Settings
from gpuserver.running_media_server import ask
from gpuserver.wire import SessionList

ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Shown:
    """avatar_ids: what running sessions show, as far as it is known; sentence: how well it is known."""

    avatar_ids: frozenset[str]
    sentence: str


def avatars_shown(settings: Settings) -> Shown:
    """Blocks for a few seconds at most."""
    try:
        status, body = ask(settings, "/v1/sessions", ANSWER_SECONDS)
        if status != 200:
            return _unknown(f"it answers with status {status}")
        sessions = SessionList.model_validate_json(body).sessions
    except ConnectionRefusedError:
        return Shown(frozenset(), f"No media server runs at {settings.media_url}, so no session shows an avatar.")
    except (OSError, http.client.HTTPException) as error:
        return _unknown(type(error).__name__)
    except ValidationError:
        return _unknown("it answers something else")
    shown = frozenset(session.avatar_id for session in sessions)
    return Shown(shown, f"Sessions at this moment: {len(sessions)}; the avatars that they show stay.")


def _unknown(why: str) -> Shown:
    return Shown(
        frozenset(), f"The media server cannot be asked which avatars are in use ({why}); a running session would keep its pictures anyway."
    )

"""Asks the media server of this machine which avatars its sessions show at this moment."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import ValidationError

from gpuserver.config import Settings
from gpuserver.web.auth import INTERNAL_HEADER, internal_secret
from gpuserver.wire import SessionList

ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Shown:
    """avatar_ids: what running sessions show, as far as it is known; sentence: how well it is known."""

    avatar_ids: frozenset[str]
    sentence: str


def avatars_shown(settings: Settings) -> Shown:
    """Blocks for a few seconds at most."""
    address = urlsplit(settings.media_url)
    connection = http.client.HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/v1/sessions", headers={INTERNAL_HEADER: internal_secret(settings)})
        answer = connection.getresponse()
        if answer.status != 200:
            return _unknown(f"it answers with status {answer.status}")
        sessions = SessionList.model_validate_json(answer.read()).sessions
    except ConnectionRefusedError:
        return Shown(frozenset(), f"No media server runs at {settings.media_url}, so no session shows an avatar.")
    except (OSError, http.client.HTTPException) as error:
        return _unknown(type(error).__name__)
    except ValidationError:
        return _unknown("it answers something else")
    finally:
        connection.close()
    shown = frozenset(session.avatar_id for session in sessions)
    return Shown(shown, f"Sessions at this moment: {len(sessions)}; the avatars that they show stay.")


def _unknown(why: str) -> Shown:
    return Shown(
        frozenset(), f"The media server cannot be asked which avatars are in use ({why}); a running session would keep its pictures anyway."
    )

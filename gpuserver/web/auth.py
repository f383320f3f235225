"""Who may call: the secret between the two processes, the tokens of sessions, and what an API key must be like."""

from __future__ import annotations

import hmac
import os
import re
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gpuserver.config import Settings
from gpuserver.errors import CannotStart, Unauthorized

if TYPE_CHECKING:  # the supervisor needs internal_secret and nothing of aiohttp
    from aiohttp import web

INTERNAL_HEADER = "X-Internal-Secret"
SHORTEST_KEY = 32
MAKE_A_KEY = "openssl rand -hex 32"
API_KEY = re.compile(rf"[!-~]{{{SHORTEST_KEY},256}}")  # what a header can carry
TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")  # as secrets.token_urlsafe() makes them; safe to pass on in a header


def internal_secret(settings: Settings) -> str:
    """INTERNAL_SECRET, else the content of .secret beside AVATARS_DIR, generated at the first start (mode 600).

    Raises CannotStart where that is no secret: every call without the header would hold an empty one.
    """
    if settings.internal_secret is not None:
        secret, place = settings.internal_secret.get_secret_value(), "INTERNAL_SECRET"
    else:
        path = _secret_file(settings)
        if not path.exists():
            _publish_secret(path)
        secret, place = path.read_text(encoding="utf-8", errors="replace").strip(), str(path)
    if not secret.isascii() or not secret.isprintable() or not secret.strip():
        raise CannotStart(f"{place} holds no secret.", advice="Delete it; a new one is made at the next start.")
    return secret


def known_secret(settings: Settings) -> str | None:
    """The internal secret if there is one; none is made, nothing is written."""
    if settings.internal_secret is None and not _secret_file(settings).is_file():
        return None
    return internal_secret(settings)


def check_keys(settings: Settings) -> None:
    """Raises CannotStart for a key that is no good, by its number in API_KEYS."""
    for number, key in enumerate(settings.api_keys, 1):
        if not API_KEY.fullmatch(key.get_secret_value()):
            raise CannotStart(
                f"API_KEYS: key {number} is not a key of at least {SHORTEST_KEY} printable ASCII characters without spaces.",
                advice=f"Make one with: {MAKE_A_KEY}.",
            )


def require_internal(request: web.Request, secret: str | None) -> None:
    """Let only the other process through. Raises Unauthorized."""
    if not secret or not same_secret(request.headers.get(INTERNAL_HEADER, ""), secret):
        raise Unauthorized(
            f"This call needs the header {INTERNAL_HEADER}.",
            advice="Sessions are made and listed through the management API (port 9000), which holds the secret.",
        )


def engine_token_of(request: web.Request) -> str:
    """The token that a browser sent, as 'Authorization: Bearer …' or ?token=…; empty if there is none, or none that can be ours."""
    scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
    token = sent.strip() if scheme.lower() == "bearer" and sent else request.query.get("token", "")
    return token if TOKEN.fullmatch(token) else ""


def same_secret(given: str, expected: str) -> bool:
    """Compare in a time that tells nothing about where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass"))


def _secret_file(settings: Settings) -> Path:
    return settings.avatars_dir.parent / ".secret"


def _publish_secret(path: Path) -> None:
    """Write a new secret, whole or not at all; of two processes that start at once the first one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, encoding="ascii") as draft:  # mode 600
        draft.write(secrets.token_urlsafe(32))
        draft.flush()
        os.fsync(draft.fileno())  # a machine that loses its power right now is left without the file, not with an empty one
        with suppress(FileExistsError):  # the other process was first; both read its secret
            os.link(draft.name, path)

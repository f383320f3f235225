"""The OpenAPI documents as files: docs/openapi-management.json and docs/openapi-media.json."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web
from pydantic import SecretStr

from gpuserver import management_api
from gpuserver.config import Settings
from gpuserver.media import server as media_server
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.web.docs_routes import DOCS


def write_documents(folder: Path) -> list[Path]:
    """Write both documents and give their paths."""
    written = []
    for name, app in applications().items():
        path = folder / f"openapi-{name}.json"
        path.write_text(app[DOCS].text(), encoding="utf-8")
        written.append(path)
    return written


def applications() -> dict[str, web.Application]:
    """Both processes' applications, not started; what they answer does not depend on the settings."""
    settings = Settings.model_construct(internal_secret=SecretStr("not used"))
    return {"management": management_api.create_app(settings, AvatarManager(settings)), "media": media_server.create_app(settings)}

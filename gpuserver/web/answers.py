"""Answers in JSON: pydantic models as they are sent."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web
from pydantic import BaseModel


def json_answer(body: BaseModel, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """The model as the body of an answer."""
    return web.Response(text=body.model_dump_json(), status=status, content_type="application/json", headers=headers)

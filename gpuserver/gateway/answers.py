"""Answers of the gateway: its models as JSON."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel


def json_answer(body: BaseModel, *, status: int = 200) -> web.Response:
    """The model as the body of an answer."""
    return web.Response(text=body.model_dump_json(), status=status, content_type="application/json")

"""The operations of the management API, but for those of the gateway, as OpenAPI describes them."""

from __future__ import annotations

from gpuserver.errors import Unavailable
from gpuserver.web.operation import Answer, Operation, Operations
from gpuserver.web.operations_avatars import AVATAR_OPERATIONS
from gpuserver.web.operations_pages import ABOUT_REFUSALS, DOCUMENTATION_OPERATIONS, METRICS_OPERATIONS, PAGE_OPERATIONS
from gpuserver.web.operations_sessions import HEALTH, HEALTH_SCHEMA, health_example, session_operations

TITLE = "gpuserver: management API"
DESCRIPTION = f"""Avatars, sessions and the Avatar Service. A browser needs nothing else: signalling and the WebSocket pass through here.

**Keys.** Where the server has API_KEYS, send one as `Authorization: Bearer …` or `X-API-Key: …`; pictures, films and event streams also
take `?api_key=…`. Signalling and the WebSocket take the session's `engine_token` instead. Without API_KEYS nothing is asked for.

{ABOUT_REFUSALS}"""

_SESSIONS = session_operations(Unavailable)

OPERATIONS: Operations = {
    "GET /health": Operation(
        HEALTH,
        "Whether everything runs",
        (
            Answer("The media server answers.", HEALTH_SCHEMA, health_example("gpuserver")),
            Answer("The media server does not answer.", HEALTH_SCHEMA, health_example("gpuserver", "unhealthy"), 503),
        ),
    ),
    **AVATAR_OPERATIONS,
    **_SESSIONS,
    "GET /api/webrtc/config": _SESSIONS["GET /v1/webrtc/config"],
    **PAGE_OPERATIONS,
    **DOCUMENTATION_OPERATIONS,
    **METRICS_OPERATIONS,
}

"""The page at / and its files, from the package itself."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from gpuserver.config import Settings
from gpuserver.web.keys import public

FOLDER = Path(__file__).parent / "static"

# Written down, because mimetypes.guess_type follows the machine's own tables.
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}


def add_static_routes(app: web.Application, settings: Settings, folder: Path = FOLDER) -> None:
    """Serve / (index.html) and /static/<path>. Files are looked up by their listed names, so no path leads outside."""
    headers = {"Content-Security-Policy": content_security_policy(settings), "Cache-Control": "no-cache"}
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.suffix in CONTENT_TYPES}

    @public
    async def page(_request: web.Request) -> web.FileResponse:
        return _file(files.get("index.html"))

    @public
    async def static(request: web.Request) -> web.FileResponse:
        return _file(files.get(request.match_info["path"]))

    def _file(path: Path | None) -> web.FileResponse:
        if path is None:
            raise web.HTTPNotFound
        return web.FileResponse(path, headers={**headers, "Content-Type": CONTENT_TYPES[path.suffix]})

    app.router.add_get("/", page)
    app.router.add_get("/static/{path:.+}", static)


def content_security_policy(settings: Settings) -> str:
    """Nothing but our own files, pictures and sockets; blob: and data: for uploads shown before they are sent."""
    connect = "'self'"
    if settings.public_url:  # engine_url is built on it, also where the page was opened under another name
        url = urlsplit(settings.public_url)
        connect += f" {url.scheme}://{url.netloc} {url.scheme.replace('http', 'ws')}://{url.netloc}"
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

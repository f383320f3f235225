"""A language model that has learnt its answers by heart, behind OpenAI's API, on a thread of its own: for tests in a browser."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODELS = ("teacher-large", "teacher-small")


class ScriptedModel(ThreadingHTTPServer):
    """answers: by the question, letter for letter; anything else is answered with the question. requests: the bodies of all questions."""

    daemon_threads = True

    def __init__(self, answers: Mapping[str, str]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = answers
        self.requests: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedModel

    def do_GET(self) -> None:
        body = json.dumps({"object": "list", "data": [{"id": model, "object": "model"} for model in MODELS]}).encode()
        self._start("application/json", {"Content-Length": str(len(body))})
        self.wfile.write(body)

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        question = request["messages"][-1]["content"]
        self._start("text/event-stream", {"Connection": "close"})
        for word in self.server.answers.get(question, question).split(" "):
            self._event({"delta": {"content": f"{word} "}, "index": 0, "finish_reason": None})
        self._event({"delta": {}, "index": 0, "finish_reason": "stop"})
        self.wfile.write(b"data: [DONE]\n\n")

    def _start(self, content_type: str, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {"Content-Type": content_type, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _event(self, choice: dict[str, Any]) -> None:
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": MODELS[0], "choices": [choice]}
        self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server gave it
        """Print nothing."""


@contextmanager
def scripted_model(answers: Mapping[str, str]) -> Iterator[ScriptedModel]:
    """Serve on a free port of the loopback."""
    server = ScriptedModel(answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

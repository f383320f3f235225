"""What a session remembers of its conversation, and what the language model is told about its role."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from gpuserver.domain import Message

MAX_MESSAGES = 40
MAX_BYTES = 32_000  # of UTF-8 text, the system prompt not counted

TUTOR_PROMPT = (
    "You are a friendly tutor who talks with a student by voice. Answer in the language of the student's last message. "
    "Speak in short, plain sentences, two to five of them unless more is asked for. "
    "What you write is read aloud: no Markdown, no lists, no tables, no emoji, no web addresses; say formulas in words."
)


class Conversation:
    """The messages of one session, the oldest forgotten first. Messages of one role in a row are told as one."""

    def __init__(self, system_prompt: str | None = None, history: Iterable[Message] = ()):
        self._system_prompt = TUTOR_PROMPT if system_prompt is None else system_prompt
        self._messages: deque[Message] = deque()
        self._bytes = 0
        for message in history:
            self.remember(message.role, message.content)

    def remember(self, role: str, content: str) -> None:
        """Note what was said; an answer only as far as it was heard. Empty text is nothing said."""
        if not content.strip():
            return
        self._messages.append(Message(role, _last_bytes(content, MAX_BYTES)))
        self._bytes += _size(self._messages[-1])
        while len(self._messages) > MAX_MESSAGES or self._bytes > MAX_BYTES:
            self._bytes -= _size(self._messages.popleft())

    def messages(self, question: str | None = None) -> list[Message]:
        """What the language model is to answer: the system prompt, the memory, the question. Chat templates want roles to alternate."""
        told = [Message("system", self._system_prompt)] if self._system_prompt else []
        asked = [] if question is None else [Message("user", question)]
        for message in [*self._messages, *asked]:
            if told and told[-1].role == message.role:
                told[-1] = Message(message.role, f"{told[-1].content}\n{message.content}")
            else:
                told.append(message)
        return told


def _size(message: Message) -> int:
    return len(message.content.encode())


def _last_bytes(text: str, limit: int) -> str:
    """The end of the text, at most `limit` bytes of UTF-8."""
    return text.encode()[-limit:].decode(errors="ignore")

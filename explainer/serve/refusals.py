"""Answers in the place of Gradio's, given so that they arrive, and without letting a sender hold the server.

A connection that is closed while something lies unread is reset, and the answer may be lost on the way. So what is left
of a short message is read and thrown away, after the answer went out and before the connection is closed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]
"""As ASGI has it: what is asked (the scope), where the body comes from, where the answer goes."""

PATIENCE = 2.0
"""Seconds that the rest of a refused message may take; who is slower has the answer, and finds the connection reset."""


@dataclass(frozen=True)
class Refusal(Exception):
    """An answer in the place of Gradio's."""

    status: int
    text: str


class Body:
    """The body of a request as ASGI gives it, of which is known whether it has come to its end.

    Args:
        receive: where it comes from.
    """

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.ended = False

    async def __call__(self) -> Message:
        """The next piece."""
        message = await self.receive()
        self.ended = message["type"] != "http.request" or not message.get("more_body")
        return message

    async def read(self, most: int) -> bytes:
        """All of it.

        Raises:
            Refusal: if it is longer than `most` bytes, or broke off.
        """
        body = b""
        while not self.ended:
            message = await self()
            if message["type"] != "http.request":
                raise Refusal(400, "The message broke off.")
            body += message.get("body", b"")
            if len(body) > most:
                raise Refusal(413, f"{most:,} bytes are taken at most.")
        return body

    async def throw_away(self, most: int) -> None:
        """What is left of it, as far as it comes within `PATIENCE`, and until it is more than `most` bytes."""
        thrown = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not self.ended and thrown <= most:
                    thrown += len((await self()).get("body", b""))


async def answer(refusal: Refusal, headers: Mapping[str, str], body: Body, send: Send, most: int) -> None:
    """Say it at once; the connection is closed when the rest of the message is there, if it is a short one.

    Args:
        refusal: what is said.
        headers: of the request, which say how long its message is.
        body: of the request.
        send: where the answer goes.
        most: bytes of a message that is read to its end, be they announced or not.
    """
    text = refusal.text.encode()
    said = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(text)), "connection": "close"}
    fields = [(name.encode(), value.encode()) for name, value in said.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": fields})
    await send({"type": "http.response.body", "body": text, "more_body": True})
    if _is_short(headers, most):
        await body.throw_away(most)
    await send({"type": "http.response.body", "body": b""})


def _is_short(headers: Mapping[str, str], most: int) -> bool:
    """Whether the message may be; who asks first (`Expect: 100-continue`) sends none after a refusal."""
    length = headers.get("content-length", "")
    return "expect" not in headers and (not length.isdecimal() or int(length) <= most)

"""Requests that are too long are answered before anything reads them."""

import json
from collections.abc import Awaitable, Callable
from typing import Any


Message = dict[str, Any]


class RequestLimit:
    """
    ASGI middleware that answers 413 to a request whose body is too long.

    Args:
        app:
            The ASGI application behind it.
        max_bytes (`int`):
            Longest body.
        message (`str`):
            What the answer says, a sentence for the visitor.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], max_bytes: int, message: str):
        self.app = app
        self.max_bytes = max_bytes
        self.message = message

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ):
        """Pass a request on, its body read, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body, more = b"", True
        while more:  # a body that is too long is read to its end too: a browser looks for an answer only then
            message = await receive()
            more = message.get("more_body", False)
            if len(body) <= self.max_bytes:
                body += message.get("body", b"")
        if len(body) > self.max_bytes:
            await send(
                {"type": "http.response.start", "status": 413, "headers": [(b"content-type", b"application/json")]}
            )
            await send({"type": "http.response.body", "body": json.dumps({"detail": self.message}).encode()})
            return
        messages = iter([message | {"body": body}])

        async def receive_again() -> Message:
            return next(messages, None) or await receive()

        await self.app(scope, receive_again, send)

"""The web server of the pages: uvicorn with limits, so that no client can block other clients or the shutdown."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import socket

    from starlette.types import ASGIApp

MAX_CONNECTIONS = 64
REQUEST_SECONDS = 15.0
"""Longest time a client may take for a request, its body included, and that a connection may lie idle before one."""
ANSWER_SECONDS = 60.0
"""Longest time after that for the answer, drawn and taken by the client."""
_CLOSING_SECONDS = 0.3


class LimitedProtocol(H11Protocol):
    """A connection that is closed if its client is slow, or if there are too many and it has waited longest.

    uvicorn itself limits the time between two requests and the number of concurrent requests. But it lets a client take
    any time to send a request, and refuses new clients while old ones hold all connections.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a new connection; if there are too many, drop the one that has waited longest for its client."""
        super().connection_made(transport)
        self.waiting_since = self.loop.time()
        self._watch = self.loop.call_later(REQUEST_SECONDS, self._check)
        others = [
            each
            for each in self.connections
            if isinstance(each, LimitedProtocol) and each is not self and not each.transport.is_closing()
        ]
        if len(others) >= MAX_CONNECTIONS:
            min(others, key=lambda each: (each.is_answering, each.waiting_since)).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._watch.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self.waiting_since = self.loop.time()
        super().on_response_complete()

    @property
    def is_answering(self) -> bool:
        """Whether a request has arrived completely and its answer is not yet sent."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    def _check(self) -> None:
        """Drop the connection if its client has taken too long."""
        allowed = REQUEST_SECONDS + (ANSWER_SECONDS if self.is_answering else 0.0)
        left = self.waiting_since + allowed - self.loop.time()
        if left <= 0:
            self.transport.abort()
        else:
            self._watch = self.loop.call_later(max(left, 1.0), self._check)


class ReviewServer(uvicorn.Server):
    """A server that ends within a second, and then cuts off requests that are not done."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End."""
        asyncio.get_running_loop().call_later(_CLOSING_SECONDS, self._cut_off)
        await super().shutdown(sockets)

    def _cut_off(self) -> None:
        for connection in list(self.server_state.connections):
            transport: Any = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
        self.force_exit = True  # an answer may still wait, such as for another process's lock
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # cutting it off needs no message


def make_server(application: ASGIApp) -> ReviewServer:
    """Return the server of an application."""
    config = uvicorn.Config(
        application,
        http=LimitedProtocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    return ReviewServer(config)

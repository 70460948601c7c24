"""Keeps other web sites from using a page that is meant for this computer."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class OriginGuard:
    """Middleware that answers only requests to this server's own address, and sets strict headers.

    A site that points its own name at 127.0.0.1 is recognised by the Host header. A site that posts from its own page
    is recognised by the Origin and Sec-Fetch-Site headers, which browsers always send. A request that changes something
    must also be JSON, which a browser does not send to another site without asking that site first.

    Args:
        app: The application.
        host: The address to which the server is bound.
    """

    def __init__(self, app: ASGIApp, *, host: str) -> None:
        self.app = app
        self.host = host.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refuse(scope["method"], Headers(scope=scope))
        await (refusal or self.app)(scope, receive, send_guarded)

    def _refuse(self, method: str, headers: Headers) -> PlainTextResponse | None:
        """Return the answer to a request that must not pass, None for one that may."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.allows(hosts[0]):
            return PlainTextResponse("Open this page by the address the command printed.", status_code=421)
        if method in {"GET", "HEAD"}:
            return None
        own = {f"http://{hosts[0]}", f"https://{hosts[0]}"}
        if headers.get("origin", f"http://{hosts[0]}") not in own:
            return PlainTextResponse("Decisions are taken from this page only.", status_code=403)
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return PlainTextResponse("Decisions are taken from this page only.", status_code=403)
        if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            return PlainTextResponse("Send JSON, with content-type application/json.", status_code=415)
        return None

    def allows(self, host: str) -> bool:
        """Return whether a Host header is an address of this server."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in {"localhost", "127.0.0.1", "::1", self.host}:
            return True
        return not is_loopback(self.host) and (_is_address(name) or name == socket.gethostname().lower())


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached only from this computer."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

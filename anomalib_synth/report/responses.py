"""Requests and responses of the pages' applications: JSON, refusals, and the page's own files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from anomalib_synth.report.templates import PAGE

if TYPE_CHECKING:
    from starlette.requests import Request

LARGEST_BODY = 16 * 2**20
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class PageFiles:
    """The scripts, styles and icons of the pages, under ``/page/{name}``."""

    def __init__(self) -> None:
        self._files = {file.name: file.read_bytes() for file in PAGE.iterdir() if file.name.endswith(tuple(_TYPES))}

    def send(self, request: Request) -> Response:
        """Send one of these files, or 404."""
        name = request.path_params["name"]
        if name not in self._files:
            return PlainTextResponse("There is no such file.", status_code=404)
        kind = _TYPES[name[name.rindex(".") :]]
        return Response(self._files[name], media_type=kind, headers={"cache-control": "no-cache"})


async def read_json(request: Request, remedy: str) -> dict[str, Any]:
    """Return the body of a request.

    Args:
        request: The request.
        remedy: What to do when it is too large.

    Raises:
        ValueError: If it is too large, or is not an object.
    """
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > LARGEST_BODY:
            msg = f"The body must be at most {LARGEST_BODY} bytes. {remedy}"
            raise ValueError(msg)
    try:
        body = json.loads(data)
    except RecursionError as error:
        msg = "The body must be an object, but it is nested too deeply."
        raise ValueError(msg) from error
    if not isinstance(body, dict):
        msg = "The body must be an object."
        raise ValueError(msg)
    return body


def send(content: dict[str, Any]) -> JSONResponse:
    """Answer with JSON that must not be cached, as it may have changed by the next request."""
    return JSONResponse(content, headers={"cache-control": "no-store"})


def refuse(error: Exception, status: int, present: dict[str, Any] | None = None) -> JSONResponse:
    """Answer with the reason of a refusal, and what a page needs to show the present state."""
    text = str(error) or type(error).__name__
    content = {**(present or {}), "error": text.encode("utf-8", "replace").decode()}
    return JSONResponse(content, status_code=status, headers={"cache-control": "no-store"})

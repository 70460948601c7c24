"""The review page as a web application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from anomalib_synth._version import __version__
from anomalib_synth.report.origin_guard import OriginGuard
from anomalib_synth.report.pictures import Pictures
from anomalib_synth.report.query import DECISIONS
from anomalib_synth.report.responses import PageFiles, read_json, refuse, send
from anomalib_synth.report.review_session import OutdatedError, ReviewSession, UnknownSampleError
from anomalib_synth.report.templates import load_templates
from anomalib_synth.store import SampleStore, StoreError
from anomalib_synth.store.rules import FLAG, TEXT, FieldRule, RecordSchema, or_none, whole

if TYPE_CHECKING:
    from starlette.requests import Request

_FULL_OUTLINE = 2048
_IDS = FieldRule("a list of text", lambda value: type(value) is list and all(type(each) is str for each in value))
_VERSIONS = FieldRule(
    "an object of versions by id",
    lambda value: type(value) is dict and all(type(each) is int and each >= 0 for each in value.values()),
)
_BY_IDS = RecordSchema(
    name="a decision about samples",
    rules={"ids": _IDS, "accepted": or_none(FLAG), "seen": _VERSIONS},
    optional=frozenset({"seen"}),
)
_BY_QUERY = RecordSchema(
    name="a decision about the samples of a query",
    rules={"query": TEXT, "expected": whole(0), "accepted": or_none(FLAG), "version": whole(0)},
    optional=frozenset({"version"}),
)
_BROKEN = (StoreError, OSError, ValueError, MemoryError, Image.DecompressionBombError)


def build_application(store: SampleStore, *, host: str = "127.0.0.1", price_per_hour: float | None = None) -> Starlette:
    """Return the review of a store as a Starlette application.

    Args:
        store: An open store.
        host: The address to which the server is bound; requests to other host names are refused.
        price_per_hour: Price of an hour of the device that drew the samples, None if it is not known.
    """
    endpoints = _ReviewEndpoints(store, price_per_hour)
    routes = [
        Route("/", endpoints.show_page),
        Route("/page/{name}", PageFiles().send),
        Route("/api/samples", endpoints.list_samples),
        Route("/api/samples/{sample}", endpoints.describe_sample),
        Route("/api/samples/{sample}/{picture}", endpoints.send_picture),
        Route("/api/decide", endpoints.decide, methods=["POST"]),
        Route("/api/undo", endpoints.undo, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {
        UnknownSampleError: lambda _, error: refuse(error, 404),
        StoreError: lambda _, error: refuse(error, 503),
        OutdatedError: lambda _, error: refuse(error, 409, error.present),
        ClientDisconnect: lambda *_: PlainTextResponse("The request was cut off.", status_code=400),
        ValueError: lambda _, error: refuse(error, 400),
    }
    return Starlette(routes=routes, exception_handlers=handlers, middleware=[Middleware(OriginGuard, host=host)])


class _ReviewEndpoints:
    """The endpoints. Plain functions run in threads, so that a slow picture does not delay other requests."""

    def __init__(self, store: SampleStore, price_per_hour: float | None) -> None:
        self.store = store
        self.session = ReviewSession(store, price_per_hour=price_per_hour)
        self.pictures = Pictures(store)
        self.template = load_templates().get_template("review.html")

    def show_page(self, _: Request) -> Response:
        name = self.store.path.resolve().name
        page = self.template.render(name=name, version=__version__, decisions=DECISIONS.items())
        return HTMLResponse(page, headers={"cache-control": "no-store"})

    def list_samples(self, request: Request) -> Response:
        return send(self.session.page(request.url.query))

    def describe_sample(self, request: Request) -> Response:
        return send(self.session.detail(request.path_params["sample"]))

    def send_picture(self, request: Request) -> Response:
        """Send a thumbnail, an original or an outline; 404 if there is no such sample, 422 if its file is broken."""
        sample = self.session.find(request.path_params["sample"]).id
        draw = {
            "image.webp": lambda: (self.pictures.thumbnail(sample, "image"), "image/webp"),
            "source.webp": lambda: (self.pictures.thumbnail(sample, "source"), "image/webp"),
            "outline.svg": lambda: (self.pictures.outline(sample), "image/svg+xml"),
            "image.png": lambda: (self.pictures.original(sample, "image"), "image/png"),
            "source.png": lambda: (self.pictures.original(sample, "source"), "image/png"),
            "border.svg": lambda: (self.pictures.outline(sample, _FULL_OUTLINE), "image/svg+xml"),
        }.get(request.path_params["picture"])
        if draw is None:
            return PlainTextResponse("There is no such picture.", status_code=404)
        try:
            data, kind = draw()
        except _BROKEN as error:
            return refuse(error, 422)
        return Response(data, media_type=kind, headers={"cache-control": "private, max-age=60"})

    async def decide(self, request: Request) -> Response:
        """Record a decision.

        The body is ``{"ids": [...], "accepted": true, "seen": {id: version}}``, or ``{"query": ..., "expected": number,
        "accepted": true, "version": version}``. The versions are those that the page was given; they say what the
        person saw. If somebody has decided since, the answer is 409 with the present state. Without versions the
        decision always overrides earlier ones.
        """
        body = await read_json(request, "Decide by `query` instead.")
        schema = _BY_QUERY if "query" in body else _BY_IDS
        if fault := schema.find_fault(body):
            msg = f"The body {fault}."
            raise ValueError(msg)
        return send(await run_in_threadpool(self._write, body))

    def _write(self, body: dict[str, Any]) -> dict[str, Any]:
        if "query" not in body:
            return self.session.decide(body["ids"], body["accepted"], seen=body.get("seen"))
        return self.session.decide_matching(
            body["query"], body["accepted"], expected=body["expected"], version=body.get("version")
        )

    async def undo(self, _: Request) -> Response:
        return send(await run_in_threadpool(self.session.undo))

"""The page on which defects are marked, as a web application."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from anomalib_synth._version import __version__
from anomalib_synth.images import UnreadableImageError
from anomalib_synth.report.marking_edits import find_fault
from anomalib_synth.report.marking_list import STATES, MarkingList
from anomalib_synth.report.marking_outline import trace_mask
from anomalib_synth.report.marking_pictures import MarkingPictures, draw_marks
from anomalib_synth.report.marking_session import MarkingSession, UnknownImageError
from anomalib_synth.report.origin_guard import OriginGuard
from anomalib_synth.report.responses import PageFiles, read_json, refuse, send
from anomalib_synth.report.review_session import OutdatedError
from anomalib_synth.report.templates import load_templates
from anomalib_synth.store import StoreError
from anomalib_synth.store.rules import TEXT, FieldRule, RecordSchema

if TYPE_CHECKING:
    from starlette.requests import Request

    from anomalib_synth.images import ImageReader
    from anomalib_synth.report.marking_files import MarkedFolder
    from anomalib_synth.report.marking_outline import Proposer

_EDIT = RecordSchema(
    name="an edit",
    rules={"seen": TEXT, "type": TEXT, "edit": FieldRule("an object", lambda value: type(value) is dict)},
)
_STEP = RecordSchema(
    name="a step", rules={"seen": TEXT, "back": FieldRule("true or false", lambda value: type(value) is bool)}
)
_REMEDY = "Draw less at a time."


def build_marking(
    folder: MarkedFolder, reader: ImageReader, *, proposer: Proposer | None = None, host: str = "127.0.0.1"
) -> Starlette:
    """Return the page for marking the images of a folder as a Starlette application.

    Args:
        folder: The images and the folder of their marks.
        reader: How the images are read.
        proposer: Proposes an outline before anything is marked; None proposes none.
        host: The address to which the server is bound; requests to other host names are refused.
    """
    endpoints = _MarkingEndpoints(folder, reader, proposer)
    threading.Thread(target=endpoints.pictures.look_through, daemon=True).start()
    routes = [
        Route("/", endpoints.show_page),
        Route("/page/{name}", PageFiles().send),
        Route("/api/images", endpoints.list_images),
        Route("/api/images/{image}", endpoints.describe),
        Route("/api/images/{image}/outline", endpoints.propose),
        Route("/api/images/{image}/edit", endpoints.edit, methods=["POST"]),
        Route("/api/images/{image}/step", endpoints.step, methods=["POST"]),
        Route("/api/images/{image}/{picture}", endpoints.send_picture),
    ]
    handlers: dict[Any, Any] = {
        UnknownImageError: lambda _, error: refuse(error, 404),
        UnreadableImageError: lambda _, error: refuse(error, 422),
        OutdatedError: lambda _, error: refuse(error, 409, error.present),
        StoreError: lambda _, error: refuse(error, 503),
        ClientDisconnect: lambda *_: PlainTextResponse("The request was cut off.", status_code=400),
        ValueError: lambda _, error: refuse(error, 400),
        OSError: lambda _, error: refuse(error, 503),
    }
    return Starlette(routes=routes, exception_handlers=handlers, middleware=[Middleware(OriginGuard, host=host)])


class _MarkingEndpoints:
    """The endpoints. Plain functions run in threads."""

    def __init__(self, folder: MarkedFolder, reader: ImageReader, proposer: Proposer | None) -> None:
        self.folder = folder
        self.pictures = MarkingPictures(folder, reader, proposer)
        self.session = MarkingSession(folder, measure=self.pictures.measure, outline=self.pictures.outline)
        self.list = MarkingList(folder)
        self.template = load_templates().get_template("mark.html")

    def show_page(self, _: Request) -> Response:
        name = self.folder.images.resolve().name
        of_regions = self.folder.of_regions
        states = [(state, text) for state, text in STATES.items() if not of_regions or state != "no_defect"]
        shown = {"name": name, "out": str(self.folder.out), "of_regions": of_regions}
        page = self.template.render(version=__version__, states=states, **shown)
        return HTMLResponse(page, headers={"cache-control": "no-store"})

    def list_images(self, _: Request) -> Response:
        is_looking = self.pictures.looked_at < len(self.folder.listed)
        described = self.list.describe(dict(self.pictures.unreadable))
        return send({**described, "looking": is_looking, "proposes": self.pictures.proposer is not None})

    def describe(self, request: Request) -> Response:
        return send(self.session.describe(request.path_params["image"]))

    def propose(self, request: Request) -> Response:
        """Send the outline proposed within the shape ``?shape=0`` or, without it, in the whole image; "" for none."""
        key = request.path_params["image"]
        text = request.query_params.get("shape", "")
        marks = self.session.marks(key)
        if text and not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < len(marks.shapes)):
            msg = f"`shape` must be one of the {len(marks.shapes)} marks of this image, got {text!r}. Look again."
            raise ValueError(msg)
        outline = self.pictures.outline(self.session.find(key), marks, int(text) if text else None)
        return send({"outline": "" if outline is None else trace_mask(outline)})

    def send_picture(self, request: Request) -> Response:
        """Send a thumbnail, the image, or its marks; 404 if there is no such image, 422 if it cannot be read."""
        image = self.session.find(request.path_params["image"])
        draw = {
            "thumbnail.webp": lambda: (self.pictures.thumbnail(image), "image/webp"),
            "picture": lambda: self.pictures.picture(image),
            "marks.svg": lambda: (draw_marks(self.session.marks(image.id)), "image/svg+xml"),
        }.get(request.path_params["picture"])
        if draw is None:
            return PlainTextResponse("There is no such picture.", status_code=404)
        data, kind = draw()
        return Response(data, media_type=kind, headers={"cache-control": "private, max-age=300"})

    async def edit(self, request: Request) -> Response:
        """Change the marks of an image: ``{"seen": version, "type": name, "edit": {"kind": ..., ...}}``.

        The version is the one that the page was given. If somebody has changed the marks since, the answer is 409 with
        the present state.
        """
        body = await read_json(request, _REMEDY)
        if fault := _EDIT.find_fault(body):
            msg = f"The body {fault}."
            raise ValueError(msg)
        if fault := find_fault(body["edit"]):
            msg = f"`edit` {fault}."
            raise ValueError(msg)
        key = request.path_params["image"]

        def write() -> dict[str, Any]:
            self.session.edit(key, body["edit"], seen=body["seen"], type_name=body["type"])
            return self.session.describe(key)

        return send(await run_in_threadpool(write))

    async def step(self, request: Request) -> Response:
        """Undo the last edit of an image, or redo it: ``{"seen": version, "back": true}``."""
        body = await read_json(request, _REMEDY)
        if fault := _STEP.find_fault(body):
            msg = f"The body {fault}."
            raise ValueError(msg)
        key = request.path_params["image"]

        def write() -> dict[str, Any]:
            step = self.session.undo if body["back"] else self.session.redo
            step(key, seen=body["seen"])
            return self.session.describe(key)

        return send(await run_in_threadpool(write))

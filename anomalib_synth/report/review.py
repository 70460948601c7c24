"""``anomalib-synth review``: the samples of a store, or images whose defects are to be marked, in the browser."""

from __future__ import annotations

import contextlib
import socket
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, cast

from anomalib_synth.store import SampleStore
from anomalib_synth.store.cost import check_price

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp


def review(
    store: Path | None = None,
    *,
    images: Path | None = None,
    out: Path | None = None,
    normals: Path | None = None,
    detector: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8765,
    static: Path | None = None,
    num_static: int = 200,
    open_browser: bool = False,
    price_per_hour: float | None = None,
) -> None:
    """Look at the samples of a store in the browser and throw out the bad ones, or mark the defects of real images.

    Decisions are written to the store at once; the next training, export or count leaves out what was rejected. It may
    be used while `generate` is still writing. Marks are written at once too: outlines as masks, boxes and scribbles as
    LabelMe files.

    Args:
        store: Folder of the store. Give either this or `images`.
        images: Folder with images of real defects to mark, searched recursively.
        out: images: folder to save the marks in, laid out as the images are; by default beside them.
        normals: images: folder with good images; each image then opens with an outline proposed where it differs most
            from them. Needs the extra `backbone`.
        detector: images: folder of a detector, as `anomalib train`, `calibrate` or `learn` left it; each image then
            opens with the outline that the detector sees.
        host: Address to serve on. The default is reached from this computer only. On another one, whoever reaches the
            port can look and decide: there is no password.
        port: Port to serve on; 0 takes a free one.
        static: store: write one HTML file to this path instead, which needs no server: pictures, outlines, captions,
            scores.
        num_static: store: number of samples in that file at most, >= 1; evenly spread over the store.
        open_browser: Whether to open the page in the default browser.
        price_per_hour: store: price of an hour of the device that drew the samples, to show what an accepted one costs.
    """
    check_price(price_per_hour)
    if (store is None) == (images is None):
        msg = (
            f"One of `store` and `images` must be given, got {'none' if store is None else 'both'}. `--store` shows "
            "synthetic samples, `--images` marks real defects."
        )
        raise ValueError(msg)
    if images is not None:
        _refuse_unused("images", static=static, price_per_hour=price_per_hour)
        _refuse_both(normals=normals, detector=detector)
        _serve_marking(
            images, out=out, normals=normals, detector=detector, host=host, port=port, open_browser=open_browser
        )
    else:
        _refuse_unused("store", out=out, normals=normals, detector=detector)
        opened = SampleStore.open(cast("Path", store))
        if static is None:
            serve(opened, host=host, port=port, open_browser=open_browser, price_per_hour=price_per_hour)
            return
        from anomalib_synth.report.static_page import write_static

        shown = write_static(opened, static, limit=num_static, price_per_hour=price_per_hour)
        print(f"Wrote {shown} of {len(opened.records)} samples to {static}.")


def _refuse_both(**options: object) -> None:
    """Refuse two options of which one takes the other's place.

    Raises:
        ValueError: Naming them.
    """
    if all(value is not None for value in options.values()):
        names = " and ".join(f"`{name}`" for name in options)
        msg = f"{names} both propose outlines. Give one of them."
        raise ValueError(msg)


def _refuse_unused(given: str, **options: object) -> None:
    """Refuse an option that what is reviewed has no use for.

    Raises:
        ValueError: Naming it.
    """
    for name, value in options.items():
        if value is not None:
            msg = f"`{name}` must be left out for `--{given}`, which has no use for it, got {str(value)!r}."
            raise ValueError(msg)


def serve(store: SampleStore, *, host: str, port: int, open_browser: bool, price_per_hour: float | None = None) -> None:
    """Serve the review of an open store until it is interrupted.

    Raises:
        ValueError: If the libraries for it are not installed, or the address cannot be used.
    """
    with _needing_the_extra():
        from anomalib_synth.report.application import build_application
    application = build_application(store, host=host, price_per_hour=price_per_hour)
    title = f"Review of {store.path} ({len(store.records)} samples)"
    serve_page(application, title, host=host, port=port, open_browser=open_browser)


def _serve_marking(
    images: Path,
    *,
    out: Path | None,
    normals: Path | None,
    detector: Path | None,
    host: str,
    port: int,
    open_browser: bool,
) -> None:
    """Serve the page on which the defects of images are marked."""
    with _needing_the_extra():
        from anomalib_synth.report.marking import prepare_marking
    application, title = prepare_marking(images, out=out, normals=normals, detector=detector, host=host)
    serve_page(application, title, host=host, port=port, open_browser=open_browser)


@contextlib.contextmanager
def _needing_the_extra() -> Iterator[None]:
    """Name the extra where a library of the server is not installed."""
    try:
        yield
    except ImportError as error:
        msg = f"`review` needs {error.name}, which is not installed: pip install anomalib-synth[review]"
        raise ValueError(msg) from error


def serve_page(application: ASGIApp, title: str, *, host: str, port: int, open_browser: bool) -> None:
    """Serve a page until it is interrupted.

    Raises:
        ValueError: If the libraries for it are not installed, or the address cannot be used.
    """
    with _needing_the_extra():
        from anomalib_synth.report.guard import is_loopback
        from anomalib_synth.report.server import make_server
    with listen(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}/"
        print(f"{title}: {address} (Ctrl+C ends)", flush=True)
        if not is_loopback(host):
            print("Anyone who reaches this address can look and decide: there is no password.", flush=True)
        if open_browser:
            webbrowser.open(address)
        with contextlib.suppress(KeyboardInterrupt):
            make_server(application).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.

    Raises:
        ValueError: If the port is out of range, or the address is in use or not of this computer.
    """
    if not 0 <= port <= 65535:
        msg = f"`port` must be in [0, 65535], got {port}. 0 takes a free one."
        raise ValueError(msg)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        msg = f"Cannot serve on {host!r}, port {port} ({error.strerror}). Choose another `port`; 0 takes a free one."
        raise ValueError(msg) from error

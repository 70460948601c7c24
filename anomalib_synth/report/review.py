"""Serves the pages of `anomalib-synth review`."""

from __future__ import annotations

import contextlib
import socket
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_synth.installation import install_extras
from anomalib_synth.store import SampleStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp


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


def serve_marking(
    images: Path,
    *,
    out: Path | None,
    normals: Path | None,
    detector: Path | None,
    host: str,
    port: int,
    open_browser: bool,
    of_regions: bool = False,
) -> None:
    """Serve the page for marking defects in images, or for painting regions on good images.

    Raises:
        ValueError: If the folders cannot be used, the libraries are not installed, or the address cannot be used.
    """
    with _needing_the_extra():
        from anomalib_synth.report.marking import prepare_marking
    application, title = prepare_marking(
        images, out=out, normals=normals, detector=detector, host=host, of_regions=of_regions
    )
    serve_page(application, title, host=host, port=port, open_browser=open_browser)


@contextlib.contextmanager
def _needing_the_extra() -> Iterator[None]:
    """Turn a missing library of the server into an error that names the extra."""
    try:
        yield
    except ImportError as error:
        msg = f"`review` needs {error.name}, which is not installed: {install_extras('review')}"
        raise ValueError(msg) from error


def serve_page(application: ASGIApp, title: str, *, host: str, port: int, open_browser: bool) -> None:
    """Serve a page until it is interrupted.

    Raises:
        ValueError: If the libraries for it are not installed, or the address cannot be used.
    """
    with _needing_the_extra():
        from anomalib_synth.report.origin_guard import is_loopback
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
        ValueError: If the port is out of range, or the address is in use or not one of this computer.
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

"""``anomalib-synth review``: the samples of a store in the browser."""

from __future__ import annotations

import contextlib
import socket
import webbrowser
from pathlib import Path

from anomalib_synth.store import SampleStore
from anomalib_synth.store.cost import check_price


def review(
    store: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    static: Path | None = None,
    num_static: int = 200,
    open_browser: bool = False,
    price_per_hour: float | None = None,
) -> None:
    """Look at the samples of a store in the browser, and throw out the bad ones.

    Decisions are written to the store at once; the next training, export or count leaves out what was rejected. It may
    be used while `generate` is still writing.

    Args:
        store: Folder of the store.
        host: Address to serve on. The default is reached from this computer only. On another one, whoever reaches the
            port can look and decide: there is no password.
        port: Port to serve on; 0 takes a free one.
        static: Write one HTML file to this path instead, which needs no server: pictures, outlines, captions, scores.
        num_static: Number of samples in that file at most, >= 1; evenly spread over the store.
        open_browser: Whether to open the page in the default browser.
        price_per_hour: Price of an hour of the device that drew the samples, to show what an accepted one costs.
    """
    check_price(price_per_hour)
    opened = SampleStore.open(store)
    if static is not None:
        from anomalib_synth.report.static_page import write_static

        shown = write_static(opened, static, limit=num_static, price_per_hour=price_per_hour)
        print(f"Wrote {shown} of {len(opened.records)} samples to {static}.")
        return
    serve(opened, host=host, port=port, open_browser=open_browser, price_per_hour=price_per_hour)


def serve(store: SampleStore, *, host: str, port: int, open_browser: bool, price_per_hour: float | None = None) -> None:
    """Serve the review of an open store until it is interrupted.

    Raises:
        ValueError: If the libraries for it are not installed, or the address cannot be used.
    """
    try:
        from anomalib_synth.report.application import build_application
        from anomalib_synth.report.guard import is_loopback
        from anomalib_synth.report.server import make_server
    except ImportError as error:
        msg = f"`review` needs {error.name}, which is not installed: pip install anomalib-synth[review]"
        raise ValueError(msg) from error
    application = build_application(store, host=host, price_per_hour=price_per_hour)
    with listen(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}/"
        print(f"Review of {store.path} ({len(store.records)} samples): {address} (Ctrl+C ends)", flush=True)
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

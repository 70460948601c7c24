"""The command `anomalib-synth review`: reviews samples, marks real defects or paints regions, in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import cast


def review(
    store: Path | None = None,
    *,
    images: Path | None = None,
    regions: Path | None = None,
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
    """Review the samples of a store in the browser, or mark the defects in real images.

    Or paint regions on good images, into which AutoregressiveGenerator draws defects.

    Decisions are written to the store at once, and the next training, export or count leaves out the rejected samples.
    You can review while `generate` is still writing. Marks are written at once too: outlines as masks, boxes and
    scribbles as LabelMe files.

    Args:
        store: Folder of the store. Give either this, `images` or `regions`.
        images: Folder with images of real defects to mark, searched recursively.
        regions: Folder with good images on which to paint where a defect may be drawn; searched recursively. The
            argument `region` of AutoregressiveGenerator takes the painted masks. Needs `out`.
        out: With images or regions: folder for the marks, laid out like the images; by default beside the images.
        normals: With images: folder with good images. Each image then opens with a proposed outline where it differs
            most from them. Needs the extra `backbone`.
        detector: With images: folder of a detector from `anomalib train`, `build`, `calibrate` or `learn`. Each image
            then opens with the outline that the detector sees.
        host: Address to serve on. The default can be reached only from this computer. At any other address, everybody
            who can reach the port can look and decide: there is no password.
        port: Port to serve on; 0 takes a free one.
        static: With store: write one HTML file to this path, which needs no server, instead of serving: pictures,
            outlines, captions, scores.
        num_static: With store: most samples in that file, >= 1, evenly spread over the store.
        open_browser: Open the page in the default browser.
        price_per_hour: With store: price of an hour of the device that drew the samples, to show the cost of an
            accepted sample.

    Raises:
        ValueError: If an argument is out of its range, or options do not belong together.
        StoreError: If there is no store, or it is damaged.
    """
    from anomalib_synth.report.review import serve, serve_marking
    from anomalib_synth.store import SampleStore
    from anomalib_synth.store.cost import check_price

    check_price(price_per_hour)
    given = [name for name, value in (("store", store), ("images", images), ("regions", regions)) if value is not None]
    if len(given) != 1:
        msg = (
            f"One of `store`, `images` and `regions` must be given, got {' and '.join(given) or 'none'}. `--store` "
            "shows synthetic samples, `--images` marks real defects, `--regions` paints where defects may be drawn."
        )
        raise ValueError(msg)
    if regions is not None:
        _refuse_unused("regions", static=static, price_per_hour=price_per_hour, normals=normals, detector=detector)
        if out is None:
            msg = (
                "`out` must be given with `--regions`, got none: masks beside good images would be taken for masks of "
                "defects. Give a folder of its own."
            )
            raise ValueError(msg)
        serve_marking(
            regions, out=out, normals=None, detector=None, host=host, port=port, open_browser=open_browser,
            of_regions=True,
        )  # fmt: skip
    elif images is not None:
        _refuse_unused("images", static=static, price_per_hour=price_per_hour)
        _refuse_both(normals=normals, detector=detector)
        serve_marking(
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
    """Refuse two options that exclude each other.

    Raises:
        ValueError: If both are given.
    """
    if all(value is not None for value in options.values()):
        names = " and ".join(f"`{name}`" for name in options)
        msg = f"{names} both propose outlines. Give one of them."
        raise ValueError(msg)


def _refuse_unused(given: str, **options: object) -> None:
    """Refuse an option that has no effect with ``given``.

    Raises:
        ValueError: If one is given.
    """
    for name, value in options.items():
        if value is not None:
            msg = f"`{name}` must be left out for `--{given}`, which has no use for it, got {str(value)!r}."
            raise ValueError(msg)

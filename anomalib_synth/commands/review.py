"""The command `anomalib-synth review`: samples of a store, or real defects to mark, in the browser."""

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
    """Look at the samples of a store in the browser and throw out the bad ones, or mark the defects of real images.

    Or paint regions on good images, for AutoregressiveGenerator to draw defects into.

    Decisions are written to the store at once; the next training, export or count leaves out what was rejected. It may
    be used while `generate` is still writing. Marks are written at once too: outlines as masks, boxes and scribbles as
    LabelMe files.

    Args:
        store: Folder of the store. Give either this, `images` or `regions`.
        images: Folder with images of real defects to mark, searched recursively.
        regions: Folder with good images on which to paint, with the brush, where a defect may be drawn; searched
            recursively. The masks are what the argument `region` of AutoregressiveGenerator takes; needs `out`.
        out: images and regions: folder to save the marks in, laid out as the images are; by default beside them.
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

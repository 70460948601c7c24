"""The review as one HTML file that needs no server and has no script."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from anomalib_synth.progress import track
from anomalib_synth.report.catalogue import Catalogue
from anomalib_synth.report.pictures import Pictures
from anomalib_synth.report.query import Query
from anomalib_synth.report.templates import load_templates
from anomalib_synth.store import StoreError
from anomalib_synth.store.files import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from anomalib_synth.store import SampleStore

_BROKEN = (StoreError, OSError, ValueError, Image.DecompressionBombError)


def write_static(store: SampleStore, out: Path, *, limit: int = 200, price_per_hour: float | None = None) -> int:
    """Write a store as one HTML file: counts, histograms, and samples with their outlines, captions and scores.

    Args:
        store: An open store.
        out: The file to write; an existing one is replaced.
        limit: Most samples to show, >= 1, evenly spread over the store.
        price_per_hour: Price of an hour of the device that drew the samples, None if it is not known.

    Returns:
        How many samples it shows.

    Raises:
        ValueError: If ``out`` does not end in .html, is a folder, or ``limit`` is below 1.
    """
    if out.suffix.lower() not in {".html", ".htm"} or out.is_dir():
        msg = f"`static` must be a file that ends in .html, got {str(out)!r}."
        raise ValueError(msg)
    if limit < 1:
        msg = f"`num_static` must be >= 1, got {limit}."
        raise ValueError(msg)
    catalogue = Catalogue(store, price_per_hour=price_per_hour)
    total = len(store.records)
    rows = sorted(set(np.linspace(0, total - 1, min(limit, total)).round().astype(int).tolist())) if total else []
    samples = [_describe(store, catalogue, row) for row in track(rows, "Writing")]
    histograms = [catalogue.select(Query(score=name)).histogram for name in catalogue.scores]
    text = (
        load_templates()
        .get_template("static.html")
        .render(
            name=store.path.resolve().name,
            settings=json.dumps(store.settings, indent=1, ensure_ascii=False),
            counts=catalogue.count(),
            scores=list(catalogue.scores),
            costs=catalogue.costs(),
            families=_count_families(catalogue),
            reasons=[each for each in catalogue.select(Query()).facets["reason"] if each["name"]],
            histograms=[_draw(histogram) for histogram in histograms if any(histogram["kept"] + histogram["out"])],
            samples=samples,
        )
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, text.encode("utf-8", "replace"))
    return len(samples)


def _describe(store: SampleStore, catalogue: Catalogue, row: int) -> dict[str, Any]:
    """Return what the file shows of a sample, or that the sample is damaged."""
    shown = catalogue.describe(row)
    if not shown["drawn"]:
        return shown
    pictures = Pictures(store)
    try:
        shown["image"] = _embed(pictures.thumbnail(shown["id"], "image"), "image/webp")
        shown["before"] = _embed(pictures.thumbnail(shown["id"], "source"), "image/webp")
        shown["outline"] = _embed(pictures.outline(shown["id"]), "image/svg+xml")
    except _BROKEN as error:
        shown["damage"] = str(error)
    return shown


def _embed(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _count_families(catalogue: Catalogue) -> list[dict[str, Any]]:
    """Return for each family how many samples are kept and left out, and their median scores."""
    names, codes = catalogue.labels["family"]
    table = []
    for code, name in enumerate(names):
        of_family = codes == code
        scores = {score: values[of_family & np.isfinite(values)] for score, values in catalogue.scores.items()}
        table.append(
            {
                "name": name or "none",
                "kept": int((of_family & catalogue.kept).sum()),
                "out": int((of_family & ~catalogue.kept).sum()),
                "medians": {
                    score: float(np.median(values)) if values.size else None for score, values in scores.items()
                },
            }
        )
    return table


def _draw(histogram: dict[str, Any], *, height: float = 60.0) -> dict[str, Any]:
    """Return the bars of a histogram, as high as the square root of the count, so that single samples are visible."""
    tallest = max(kept + out for kept, out in zip(histogram["kept"], histogram["out"], strict=True))
    bars = []
    for position, (kept, out) in enumerate(zip(histogram["kept"], histogram["out"], strict=True)):
        whole = height * ((kept + out) / tallest) ** 0.5
        share = whole * kept / max(kept + out, 1)
        bars.append(
            {"x": 6 * position, "kept": round(share, 2), "out": round(whole - share, 2), "whole": round(whole, 2)}
        )
    edges = histogram["edges"]
    return {"score": histogram["score"], "scale": histogram["scale"], "low": edges[0], "high": edges[-1], "bars": bars}

"""Prepares the marking page of ``anomalib-synth review --images``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anomalib_synth.generators.prepared import evenly_spread
from anomalib_synth.images import (
    ImageFolder,
    ImageReader,
    ImageSize,
    describe_left_out,
    find_white_point,
    list_images,
)
from anomalib_synth.report.marking_application import build_marking
from anomalib_synth.report.marking_files import MarkedFolder

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.applications import Starlette

    from anomalib_synth.images import WhitePoint
    from anomalib_synth.report.marking_outline import Proposer

_MOST_NORMALS = 64
_SIDE = 256


def prepare_marking(
    images: Path,
    *,
    out: Path | None,
    normals: Path | None,
    detector: Path | None,
    host: str,
    of_regions: bool = False,
) -> tuple[Starlette, str]:
    """Return the application for marking the images of a folder, and its title.

    Args:
        images: Folder with images of defects, searched recursively.
        out: Folder for the marks; None takes that of the images.
        normals: Folder with good images, from which outlines are proposed; None proposes none.
        detector: Folder of a trained detector that proposes outlines instead of ``normals``.
        host: The address to which the server will be bound.
        of_regions: Whether regions for drawn defects are painted on good images, instead of marking defects.

    Raises:
        ValueError: If the folders cannot be used.
        OSError: If the weights that `normals` needs cannot be read.
    """
    folder = MarkedFolder.open(images, out, of_regions=of_regions)
    good = [] if normals is None else list_images(normals, "normals").paths
    white = find_white_point([*(image.path for image in folder.listed.values()), *good])
    for line in describe_left_out(folder.left_out, "regions" if of_regions else "images"):
        print(line)
    proposer: Proposer | None = None
    if detector is not None:
        from anomalib_synth.learning.detector_map import DetectorMap

        proposer = DetectorMap(detector)
        white = proposer.white_point.completed(white)
    elif normals is not None:
        proposer = fit_proposer(normals, white)
    application = build_marking(folder, ImageReader(white_point=white), proposer=proposer, host=host)
    doing = "Painting regions on" if of_regions else "Marking"
    return application, f"{doing} {images} ({len(folder.listed)} images), saved to {folder.out}"


def fit_proposer(normals: Path, white: WhitePoint) -> Proposer:
    """Return a proposer that finds where an image differs most from good images, fitted to at most 64 of them.

    Raises:
        ValueError: If there are too few good images.
        OSError: If the weights of the backbone cannot be read.
    """
    from anomalib_synth.detectors.discriminative_padim.normality_map import NormalityMap

    listing = list_images(normals, "normals")
    good = ImageFolder(
        dict(evenly_spread(list(listing.files.items()), _MOST_NORMALS)),
        image_size=ImageSize(height=_SIDE, width=_SIDE),
        white_point=white,
        description="Looking at the good images",
        quiet_below=0,
    )
    fitted = NormalityMap(side=_SIDE).fit(pixels for _, pixels in good)
    for line in listing.notes(good.left_out):
        print(line)
    return fitted

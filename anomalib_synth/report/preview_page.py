"""The preview as one HTML file, in which ticked families become the families of a configuration."""

from __future__ import annotations

import base64
import hashlib
import io
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from anomalib_synth.report.preview_config import describe_generator
from anomalib_synth.report.preview_tiles import TILES
from anomalib_synth.report.templates import PAGE, load_templates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from anomalib_synth.generators import AnomalyGenerator
    from anomalib_synth.report.preview_samples import Section

TILE = 256


def make_page(generator: AnomalyGenerator, sections: Sequence[Section], facts: Sequence[str]) -> str:
    """Return the page. All inserted text is escaped, and only the page's own script can run.

    Args:
        generator: The generator that drew the samples.
        sections: The samples.
        facts: Sentences about the images and how they were read.
    """
    config = describe_generator(generator)
    script = (PAGE / "preview.js").read_text(encoding="utf-8")
    files = [
        {"name": name, "template": text, "text": config.fill(text), "use": use}
        for name, text, use in (
            (
                "generator.yaml",
                config.generator,
                "anomalib-synth generate --normals DIR --out DIR --generator generator.yaml",
            ),
            ("synthesis.yaml", config.overlay, "anomalib train --config YOUR.yaml --config synthesis.yaml"),
        )
    ]
    return (
        load_templates()
        .get_template("preview.html")
        .render(
            kind=type(generator).__name__,
            sections=[_describe(section, config.entries) for section in sections],
            ticks=bool(config.entries),
            passed=sum(section.passed for section in sections),
            total=sum(len(section.drawings) for section in sections),
            facts=facts,
            files=files,
            script=Markup(script),  # the package's own file
            digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def _describe(section: Section, entries: dict[str, str]) -> dict[str, Any]:
    return {
        "name": section.name,
        "about": section.about,
        "entry": entries.get(section.name, ""),
        "passed": section.passed,
        "drawings": [
            {
                "text": drawing.text,
                "reason": drawing.reason,
                "tiles": [
                    {
                        "name": name,
                        "words": TILES[name],
                        "width": tile.width,
                        "height": tile.height,
                        "data": _embed(tile),
                    }
                    for name, tile in drawing.tiles.items()
                ],
            }
            for drawing in section.drawings
        ],
    }


def _embed(tile: Image.Image) -> str:
    buffer = io.BytesIO()
    tile.save(buffer, "WEBP", quality=88)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"

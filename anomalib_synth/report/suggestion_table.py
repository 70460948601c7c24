"""The tables that `anomalib-synth suggest` prints, and the overlay that it writes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from anomalib_synth.fitting.suggestion import make_overlay
from anomalib_synth.store.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anomalib_synth.fitting.suggestion import Suggestion
    from anomalib_synth.generators import AnomalyGenerator

_SHOWN = {
    "size": "root of its area, share of the shorter side",
    "length": "length, share of the shorter side",
    "elongation": "length over width",
    "brightness": "brighter (or darker) than around",
    "contrast": "mean difference to around",
    "chroma": "difference in colour",
    "place": "distance to the edge of the part or image",
}


def describe_suggestion(found: Suggestion, measured: Sequence[dict[str, float]]) -> None:
    """Print what the real defects measure, and which families resemble them."""
    console = Console()
    real = Table("real defects", "10 %", "median", "90 %", title=f"{len(measured)} real defects, brightness in [0, 1]")
    for name, words in _SHOWN.items():
        low, middle, high = np.quantile([each[name] for each in measured], [0.1, 0.5, 0.9])
        real.add_row(words, f"{low:.3f}", f"{middle:.3f}", f"{high:.3f}")
    console.print(real)
    table = Table("family", "share", "size", "strength", title="families that resemble them")
    for each in found.families:
        sizes, strengths = (f"{low:g} to {high:g}" for low, high in (each.size, each.strength))
        table.add_row(each.family, f"{each.share:.0%}", sizes, strengths)
    console.print(table)
    if found.unlike:
        console.print(
            f"{found.unlike} of {len(measured)} are unlike every family: paste them instead (RealDefectGenerator), or "
            "register a family of your own.",
            soft_wrap=True,
        )


def write_overlay(out: Path, generator: AnomalyGenerator) -> None:
    """Write the overlay for training with a generator.

    Raises:
        OSError: If the file cannot be written.
    """
    text = yaml.safe_dump(json.loads(json.dumps(make_overlay(generator), default=str)), sort_keys=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, f"# Families that resemble the real defects, by `anomalib-synth suggest`.\n{text}".encode())

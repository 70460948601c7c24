"""What the page on which defects are marked needs before it opens."""

from __future__ import annotations

import numpy as np
from PIL import Image

from anomalib_synth.detectors.discriminative_padim import normality_map
from anomalib_synth.images import WhitePoint, folder
from anomalib_synth.report.marking import fit_proposer


def test_one_bar_is_shown_when_many_good_images_are_looked_at(tmp_path, monkeypatch) -> None:
    """A bar within a bar would say the same twice."""
    for number in range(64):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / f"{number:03d}.png")
    shown = []

    def track(items, description, *, disable=False, **_):
        if not disable:
            shown.append(description)
        yield from items

    class Counts:
        def __init__(self, **_: object) -> None:
            self.seen = 0

        def fit(self, normals):
            self.seen = len(list(normals))
            return self

    monkeypatch.setattr(folder, "track", track)
    monkeypatch.setattr(normality_map, "NormalityMap", Counts)
    assert fit_proposer(tmp_path, WhitePoint()).seen == 64
    assert shown == ["Looking at the good images"]

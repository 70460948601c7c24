"""What the page on which defects are marked needs before it opens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from anomalib_synth.detectors.discriminative_padim import normality_map
from anomalib_synth.images import WhitePoint, folder
from anomalib_synth.learning import detector_map
from anomalib_synth.report import marking
from anomalib_synth.report.marking import fit_proposer, prepare_marking


def test_one_bar_is_shown_when_many_good_images_are_looked_at(tmp_path, monkeypatch, capsys) -> None:
    """A bar within a bar would say the same twice."""
    for number in range(64):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / f"{number:03d}.png")
    (tmp_path / "old.gif").write_bytes(b"x")
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
    assert "Left out old.gif of `normals`: the format .gif is not read" in capsys.readouterr().out


def test_images_are_shown_by_the_white_of_the_detector_that_proposes(tmp_path, monkeypatch) -> None:
    """They are dark here: by a white of their own it would propose on images four times as bright."""
    Image.fromarray(np.full((32, 32), 1000, np.uint16)).save(tmp_path / "a.png")

    class Detector:
        white_point = WhitePoint(4095, None)

        def __init__(self, folder: Path) -> None:
            pass

    readers = []
    monkeypatch.setattr(detector_map, "DetectorMap", Detector)
    monkeypatch.setattr(marking, "build_marking", lambda _, reader, **__: readers.append(reader))
    prepare_marking(tmp_path, out=tmp_path / "marks", normals=None, detector=tmp_path, host="127.0.0.1")
    assert [reader.white_point.integer for reader in readers] == [4095]

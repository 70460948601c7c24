"""Which files of a folder are images of real defects."""

from __future__ import annotations

import numpy as np
from PIL import Image

from anomalib_synth.defects import list_defects

SAID = "`defects`: Left out 1 images of formats that are not read (1 .jp2), such as 'old.jp2'"


def test_formats_that_are_not_read_are_named_once_when_a_folder_holds_some(tmp_path, caplog) -> None:
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "old.jp2").write_bytes(b"x")
    for _ in range(2):
        assert [defect.image.name for defect in list_defects(tmp_path, name="defects")] == ["a.png"]
    assert caplog.text.count(SAID) == 1

"""Image sets on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.data.image_sets import write_images, write_mvtec


@pytest.fixture
def good(tmp_path: Path) -> Path:
    write_images(tmp_path / "data" / "good", 12)
    return tmp_path / "data"


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    write_mvtec(tmp_path / "mvtec")
    return tmp_path / "mvtec"

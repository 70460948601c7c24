"""Foreign textures: windows of any size, varied per sample, the same for the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_synth.generators.seeding import RandomStream
from anomalib_synth.generators.textures import ProceduralTextures, TextureFolder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> TextureFolder:
    rng = np.random.default_rng(0)
    for n in range(2):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / f"{n}.png")
    return TextureFolder(tmp_path)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(16, 24), (40, 60), (96, 64), (300, 512)])
def test_window_has_the_size_and_range_when_the_texture_is_smaller_or_larger(
    folder: TextureFolder, size: tuple[int, int], channels: int
) -> None:
    for source in (folder, ProceduralTextures()):
        for seed in range(12):
            window = source.cut(RandomStream(seed), size, channels)
            assert window.shape == (channels, *size)
            assert window.dtype == torch.float32
            assert float(window.min()) >= 0
            assert float(window.max()) <= 1


def test_window_is_the_same_when_it_is_drawn_again_by_another_source(folder: TextureFolder) -> None:
    other = TextureFolder(folder.path)
    other.cut(RandomStream(1), (16, 16), 3)
    threads = torch.get_num_threads()
    for seed in range(20):
        assert torch.equal(folder.cut(RandomStream(seed), (16, 16), 3), other.cut(RandomStream(seed), (16, 16), 3))
    rendered = [ProceduralTextures().cut(RandomStream(seed), (64, 64), 3) for seed in range(8)]
    torch.set_num_threads(2)
    try:
        assert all(torch.equal(ProceduralTextures().cut(RandomStream(n), (64, 64), 3), rendered[n]) for n in range(8))
    finally:
        torch.set_num_threads(threads)


def test_tones_vary_when_the_texture_is_the_same(tmp_path: Path) -> None:
    ramp = np.linspace(30, 220, 64).astype(np.uint8)
    Image.fromarray(np.broadcast_to(ramp[None, :, None], (64, 64, 3)).copy()).save(tmp_path / "ramp.png")
    source = TextureFolder(tmp_path)
    windows = [source.cut(RandomStream(seed), (64, 64), 3)[0, 0] for seed in range(40)]
    assert sum(bool((window.diff() < -0.01).any()) for window in windows) > 8  # inverted or solarised
    assert sum(len(window.unique()) <= 33 for window in windows) > 4  # posterised
    assert sum(float(window.max() - window.min()) > 0.97 for window in windows) > 4  # equalised
    assert len({window.numpy().tobytes() for window in windows}) == 40


def test_colours_survive_when_a_texture_is_kept_as_a_palette(tmp_path: Path) -> None:
    y, x = np.mgrid[:64, :64] / 63
    pixels = (255 * np.stack([x, y, 1 - x], axis=2)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    source = TextureFolder(tmp_path)
    texture = source._read(source.files[0])
    shown = texture.palette[:, texture.index.long()].permute(1, 2, 0).numpy() * 255
    assert np.abs(shown - pixels).mean() < 8

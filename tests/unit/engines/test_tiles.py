"""Images too large for memory are drawn in tiles."""

from __future__ import annotations

import numpy as np
import pytest

from anomalib_synth.commands.generate import generate
from anomalib_synth.engines.tiles import Tile
from anomalib_synth.generators import MixtureGenerator, RuleBasedGenerator
from anomalib_synth.store import SampleStore, encode_png
from tests.contract import render_normals


def test_a_small_image_is_drawn_whole() -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    tile = Tile.choose(pixels, 5)
    assert tile == Tile(0, 0, 40, 60)
    assert tile.put(pixels, pixels) is pixels


def test_a_tile_lies_within_its_image_and_moves_with_the_seed(monkeypatch) -> None:
    monkeypatch.setattr("anomalib_synth.engines.tiles.MAX_NATIVE_PIXELS", 2**12)
    monkeypatch.setattr("anomalib_synth.engines.tiles._SIDE", 48)
    pixels = np.arange(100 * 300, dtype=np.uint32).reshape(100, 300)
    tiles = [Tile.choose(pixels, seed) for seed in range(50)]
    assert all(tile.cut(pixels).shape == (48, 48) for tile in tiles)
    assert len({(tile.top, tile.left) for tile in tiles}) > 40
    whole = tiles[0].put(np.zeros((48, 48), np.uint32), pixels)
    assert (whole != pixels).sum() == 48 * 48 - (tiles[0].cut(pixels) == 0).sum()
    assert pixels[0, 1] == 1  # the image itself is as it was
    assert tiles[0].share_of(pixels) == 48 * 48 / 30_000


def test_samples_have_the_native_size_and_change_only_their_tile(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("anomalib_synth.engines.tiles.MAX_NATIVE_PIXELS", 2**12)
    monkeypatch.setattr("anomalib_synth.engines.tiles._SIDE", 64)
    for position, image in enumerate(render_normals(3, 3, 96, 128)):
        levels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        (tmp_path / f"normals{position}.png").write_bytes(encode_png(levels))
    generate(tmp_path, out=tmp_path.parent / f"{tmp_path.name}_store", num_samples=9)
    store = SampleStore.open(tmp_path.parent / f"{tmp_path.name}_store")
    accepted = [record for record in store.records if record.accepted]
    assert accepted
    for record in accepted:
        source, image, mask = store.read_source(record), store.read_image(record), store.read_mask(record)
        assert image.shape == source.shape == (96, 128, 3)
        assert mask.shape == (96, 128)
        np.testing.assert_array_equal(image[mask == 0], source[mask == 0])
        rows, columns = np.nonzero(mask)
        assert np.ptp(rows) < 64
        assert np.ptp(columns) < 64
        assert abs(record.area - (mask > 0).mean()) < 1e-6


def test_a_foreground_mask_is_refused_where_a_tile_would_get_all_of_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("anomalib_synth.engines.tiles.MAX_NATIVE_PIXELS", 2**12)
    monkeypatch.setattr("anomalib_synth.engines.tiles._SIDE", 64)
    (tmp_path / "normals").mkdir()
    for position, image in enumerate(render_normals(2, 3, 96, 128)):
        levels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        (tmp_path / "normals" / f"{position}.png").write_bytes(encode_png(levels))
    part = np.zeros((96, 128), np.uint8)
    part[:, :40] = 255
    (tmp_path / "part.png").write_bytes(encode_png(part))
    generator = RuleBasedGenerator(["stain"], foreground=tmp_path / "part.png")
    for number, each in enumerate((generator, MixtureGenerator([generator]))):
        with pytest.raises(ValueError, match=r"`foreground` must be auto or null for images of more than 33 megapixel"):
            generate(tmp_path / "normals", out=tmp_path / f"store{number}", num_samples=2, generator=each)

"""A sample's way into a store: what is put, once, and what its row says."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.generators.keeping import SampleKeeper, to_levels
from anomalib_synth.sample import AnomalySample
from anomalib_synth.store import SampleStore

SIDE = 48


@pytest.fixture
def sample() -> AnomalySample:
    levels = np.random.default_rng(0).integers(90, 130, (2, 3, SIDE, SIDE))
    images = torch.from_numpy(levels).float() / 255
    drawn = RuleBasedGenerator(["noise"], strength=(0.9, 1.0), foreground=None)(images, seeds=[1, 2])
    assert bool(drawn.accepted.all())
    return drawn


def test_levels_come_back_exactly_when_they_were_eight_bits() -> None:
    levels = torch.arange(256).view(1, 16, 16)
    assert np.array_equal(to_levels(levels / 255)[..., 0], levels[0].numpy())


def test_row_and_files_say_what_the_sample_is(sample, tmp_path) -> None:
    store = SampleStore.create(tmp_path / "store", {})
    keeper = SampleKeeper(store.put, split="test", weights_hash="")
    with store.writing():
        for row, seed in enumerate((1, 2)):
            source = to_levels(sample.source[row])
            store.append(keeper.keep(sample, row, index=row, name=f"{row}.png", seed=seed, source=source, seconds=0.25))
    assert store.verify() == []
    for row, record in enumerate(SampleStore.open(store.path).records):
        assert np.array_equal(store.read_image(record), to_levels(sample.image[row]))
        assert np.array_equal(store.read_mask(record) > 0, sample.mask[row, 0].numpy() > 0)
        assert np.array_equal(store.read_source(record), to_levels(sample.source[row]))
        measured = sample.provenance[row].measured
        assert (record.split, record.source, record.seed, record.seconds) == ("test", f"{row}.png", row + 1, 0.25)
        assert record.area == pytest.approx(measured["area"])
        assert record.visibility == measured["visibility"]
        assert record.quality == pytest.approx(float(sample.quality[row]))


def test_area_is_that_of_the_whole_image_when_a_tile_of_it_was_drawn_on(sample, tmp_path) -> None:
    keeper = SampleKeeper(SampleStore(tmp_path).put, split="train", weights_hash="")
    whole = np.zeros((2 * SIDE, 2 * SIDE, 3), np.uint8)
    mask = np.zeros(whole.shape[:2], np.uint8)
    record = keeper.keep(sample, 0, index=0, name="a.png", seed=1, source=whole, image=whole, mask=mask)
    assert record.area == pytest.approx(sample.provenance[0].measured["area"] / 4)


def test_rejected_draw_has_a_row_and_a_source_and_no_other_file(sample) -> None:
    sample.accepted[0] = False
    sample.reason[0] = "too faint"
    put: Counter[str] = Counter()
    keeper = SampleKeeper(lambda kind, name, data: put.update([kind]) or (name, ""), split="train", weights_hash="")
    record = keeper.keep(sample, 0, index=0, name="a.png", seed=1, source=to_levels(sample.source[0]))
    assert (record.image_file, record.mask_file, record.image_hash, record.reason) == ("", "", "", "too faint")
    assert put == {"sources": 1}


def test_source_is_put_once_when_several_samples_are_drawn_on_it(sample) -> None:
    put: Counter[str] = Counter()
    keeper = SampleKeeper(lambda kind, name, data: put.update([kind]) or (name, ""), split="train", weights_hash="")
    source = to_levels(sample.source[0])
    first = keeper.keep(sample, 0, index=0, name="a.png", seed=1, source=source)
    second = keeper.keep(sample, 0, index=1, name="a.png", seed=2, source=source)
    assert put == {"sources": 1, "images": 2, "masks": 2}
    assert first.source_file == second.source_file
    assert first.id != second.id

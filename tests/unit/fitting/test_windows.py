"""Training windows: the same for the same seed and step, honest, and of the normals."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.fitting.windows import WindowSampler
from anomalib_synth.generators import RuleBasedGenerator, SampleChecks
from tests.contract import render_normals

NORMALS = list(render_normals(3, 3, 80, 96))
GENERATOR = RuleBasedGenerator(["scratch", "stain"], size=(0.1, 0.6), foreground=None)


def make(normals=NORMALS, generator=GENERATOR, **arguments) -> WindowSampler:
    return WindowSampler(normals, generator, **{"size": 48, "seed": 5} | arguments)


def test_a_batch_has_the_documented_shapes_and_is_honest() -> None:
    batch = make().draw(0, 12)
    count = len(batch.captions)
    assert count >= 9
    assert batch.source.shape == batch.image.shape == (count, 3, 48, 48)
    assert batch.mask.shape == (count, 1, 48, 48)
    assert batch.image.dtype == torch.float32
    assert set(batch.families) == {"scratch", "stain"}
    for row in range(count):
        outside = (batch.mask[row] == 0).expand(3, -1, -1)
        assert torch.equal(batch.image[row][outside], batch.source[row][outside])
        assert batch.mask[row].any()
        assert not torch.equal(batch.image[row], batch.source[row])
        assert batch.families[row] in batch.captions[row]


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    first, second = make(), make()
    second.draw(7, 3)
    for a, b in ((first.draw(2, 6), second.draw(2, 6)), (first.draw(2, 6), first.draw(2, 6))):
        assert torch.equal(a.image, b.image)
        assert a.captions == b.captions
    assert not torch.equal(first.draw_sources(2, 6), first.draw_sources(3, 6))
    assert not torch.equal(first.draw_sources(2, 6), make(seed=6).draw_sources(2, 6))
    assert torch.equal(first.draw_sources(2, 6)[:4], first.draw_sources(2, 4))


def test_sources_are_windows_of_the_normals_turned_and_mirrored() -> None:
    ramp = torch.arange(64 * 64).view(1, 64, 64).expand(3, -1, -1) / 64**2
    windows = make([ramp], size=64).draw_sources(0, 32)
    turns = [ramp.rot90(k, (1, 2)) for k in range(4)]
    wanted = turns + [turn.flip(2) for turn in turns]
    found = {next(n for n, each in enumerate(wanted) if torch.equal(window, each)) for window in windows}
    assert len(found) >= 6


def test_bytes_become_levels_in_the_unit_range() -> None:
    levels = torch.randint(0, 256, (3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    window = make([levels]).draw_sources(0, 1)[0]
    assert window.dtype == torch.float32
    assert torch.equal(window.flatten().sort().values, (levels.float() / 255).flatten().sort().values)


def test_every_normal_and_every_place_is_used() -> None:
    flat = [torch.full((3, 64, 64), 0.1 * n) for n in range(4)]
    assert len({round(float(window.mean()), 3) for window in make(flat).draw_sources(0, 40)}) == 4
    column = (torch.arange(96.0) / 96).view(1, 1, 96).expand(3, 96, -1).contiguous()
    means = make([column]).draw_sources(0, 60).mean((1, 2, 3))
    assert means.min() < 0.3
    assert means.max() > 0.7


def test_draws_that_fail_the_checks_are_left_out() -> None:
    strict = RuleBasedGenerator(
        ["stain"], size=(0.1, 0.6), foreground=None, max_attempts=1, checks=SampleChecks(area=(0.05, 0.08))
    )
    batch = make(generator=strict).draw(0, 24)
    assert 0 < len(batch.captions) < 24
    area = batch.mask.mean((1, 2, 3))
    assert bool(((area >= 0.05) & (area <= 0.08)).all())


def test_a_defect_has_the_size_of_its_frame_when_the_window_is_smaller() -> None:
    normals = list(render_normals(3, 3, 200, 260))
    large = RuleBasedGenerator(["stain"], size=(0.2, 0.3), foreground=None)
    batch = make(normals, large, size=64, frame=192).draw(0, 12)
    count = len(batch.captions)
    assert count >= 9
    assert batch.source.shape == batch.image.shape == (count, 3, 64, 64)
    assert batch.mask.mean() > 2 * make(normals, large, size=64).draw(0, 12).mask.mean()
    assert all("large" in caption for caption in batch.captions)
    for row in range(count):
        outside = (batch.mask[row] == 0).expand(3, -1, -1)
        assert torch.equal(batch.image[row][outside], batch.source[row][outside])
        assert batch.mask[row].any()


def test_all_of_a_defect_is_in_the_window_when_it_fits() -> None:
    normals = list(render_normals(3, 3, 150, 260))
    small = RuleBasedGenerator(["hole"], size=(0.1, 0.15), foreground=None)
    sampler = make(normals, small, size=64, frame=128)
    batch = sampler.draw(0, 16)
    places = set()
    for mask in batch.mask[:, 0]:
        inside = mask.nonzero()
        assert (inside.amax(0) - inside.amin(0)).max() < 30
        assert mask.sum() > 60
        places.add(tuple((inside.float().mean(0) // 16).tolist()))
    assert len(places) > 4
    assert "small" in " ".join(
        make(normals, RuleBasedGenerator(["hole"], size=(0.03, 0.06), foreground=None), size=64, frame=128)
        .draw(0, 8)
        .captions
    )


def test_random_state_stays() -> None:
    state = torch.get_rng_state()
    make().draw(0, 2)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("normals", "message"),
    [
        ([], "at least one image"),
        ([torch.zeros(3, 40, 80)], r"H and W >= 48.*got \(3, 40, 80\)"),
        ([torch.zeros(1, 80, 80)], r"must be \(3, H, W\)"),
        ([torch.zeros(1, 3, 80, 80)], r"must be \(3, H, W\)"),
    ],
)
def test_normals_that_do_not_fit_are_refused(normals, message) -> None:
    with pytest.raises(ValueError, match=message):
        make(normals)

"""Every physical family keeps the contract of a family: replay, visibility, soft cover, windows, captions."""

import pytest
import torch

from anomalib_synth.functional.layers import Window
from anomalib_synth.generators.families.family import Family, Frame
from anomalib_synth.generators.families.physical import FAMILIES
from anomalib_synth.generators.rule_based import RuleBasedGenerator
from anomalib_synth.generators.seeding import RandomStream

NOUNS = {
    "thread_pull": "pulled thread",
    "uneven": "uneven region",
    "streaks": "group of streaks",
    "fray": "frayed patch",
}
NAMES = {
    "scratch", "crack", "dent", "stain", "hole", "chip", "fibre", "corrosion", "burn", "bubble", "misprint",
    "thread_pull", "deformation", "uneven", "wear", "streaks", "fray",
}  # fmt: skip


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.5 + 0.05 * torch.rand(8, 3, 96, 96, generator=generator)


def generate(family: Family, images: torch.Tensor, seeds: range, strength: float | None = None):
    limits = (0.3, 1.0) if strength is None else (strength, strength)
    return RuleBasedGenerator(families=[family.name], strength=limits)(images, seeds=seeds)


def test_the_families_are_those_of_the_design() -> None:
    assert {family.name for family in FAMILIES} == NAMES
    assert len(FAMILIES) == len(NAMES)


def test_a_sample_is_bitwise_the_same_alone_and_in_a_batch(family: Family, images: torch.Tensor) -> None:
    batch = generate(family, images, range(20, 28))
    assert batch.accepted.float().mean() >= 0.75
    for row in range(len(images)):
        single = generate(family, images[row : row + 1], range(20 + row, 21 + row))
        assert torch.equal(single.image[0], batch.image[row])
        assert torch.equal(single.mask[0], batch.mask[row])
        assert single.caption[0] == batch.caption[row]


def test_change_grows_with_strength(family: Family, images: torch.Tensor) -> None:
    weak, strong = (generate(family, images, range(8), strength) for strength in (0.5, 1.0))
    seen = 0
    for row in range(len(images)):
        if not (weak.accepted[row] and weak.provenance[row].attempt == strong.provenance[row].attempt):
            continue
        seen += 1
        low, high = ((sample.image[row] - images[row]).abs() for sample in (weak, strong))
        assert bool((high >= low - 1e-6).all())
        assert float(high.sum()) > 1.2 * float(low.sum())
    assert seen >= 4


@pytest.mark.parametrize("channels", [1, 3])
def test_cover_is_a_share_and_fades_before_the_window_ends(family: Family, channels: int) -> None:
    for seed in range(30):
        params = family.draw(RandomStream(seed), Frame(height=256, width=256, size=(0.04, 0.25)))
        size = int(params["extent_y"]) + 1, int(params["extent_x"]) + 1
        y, x = (torch.arange(side) + 0.5 - side / 2 for side in size)
        window = Window(
            image=0.5 + 0.1 * torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(seed)),
            x=x.view(1, 1, 1, -1),
            y=y.view(1, 1, -1, 1),
            foreground=torch.ones(1, 1, *size),
            background=torch.full((1, channels, 1, 1), 0.9),
        )
        layer = family.render(window, {name: torch.full((1, 1, 1, 1), value) for name, value in params.items()})
        assert layer.target.shape == window.image.shape
        assert layer.alpha.shape == (1, 1, *size)
        assert bool(torch.isfinite(layer.target).all())
        assert 0 <= float(layer.alpha.min()) <= float(layer.alpha.max()) <= 1
        assert float(layer.alpha.max()) > 0.2
        frame = layer.alpha.clone()
        frame[..., 1:-1, 1:-1] = 0
        assert float(frame.max()) == 0


@pytest.mark.parametrize("size", [(1, 8, 8), (1, 33, 47), (3, 9, 14), (3, 61, 40)])
def test_small_odd_and_grey_images_work(family: Family, size: tuple[int, int, int]) -> None:
    images = 0.4 + 0.2 * torch.rand(3, *size, generator=torch.Generator().manual_seed(1))
    before = images.clone()
    sample = generate(family, images, range(3))
    assert torch.equal(images, before)
    assert bool(torch.isfinite(sample.image).all())
    assert torch.equal(torch.where(sample.mask > 0, images, sample.image), images)


def test_most_families_show_on_constant_images() -> None:
    for level in (0.0, 1.0):
        shown = [
            float(generate(family, torch.full((4, 3, 64, 64), level), range(4)).accepted.float().mean()) >= 0.5
            for family in FAMILIES
        ]
        assert sum(shown) >= 9, [family.name for family, ok in zip(FAMILIES, shown, strict=True) if not ok]


def test_caption_names_the_defect(family: Family) -> None:
    noun = NOUNS.get(family.name, family.name)
    seen = set()
    for seed in range(40):
        params = family.draw(RandomStream(seed), Frame(height=256, width=256, size=(0.04, 0.25)))
        caption = family.caption(params)
        assert noun in caption or (noun == "scratch" and "scratches" in caption)
        assert caption.startswith(("a ", "an "))
        assert "  " not in caption
        assert all(isinstance(value, float) for value in params.values())
        seen.add(caption)
    assert len(seen) >= 4

"""Physical kernels against independent NumPy computations."""

import numpy as np
import pytest
import torch

from anomalib_synth.functional.layers import Window
from anomalib_synth.functional.physical_lines import crack, scratch
from anomalib_synth.functional.physical_surface import dent
from anomalib_synth.functional.shading import bump, over, shade
from anomalib_synth.functional.strokes import jagged, links, stroke_distance
from anomalib_synth.functional.warping import displace, shift_planes


def make_window(side: int, *, batch: int = 1, channels: int = 3, level: float = 0.5) -> Window:
    places = torch.arange(side) + 0.5 - side / 2
    return Window(
        image=torch.full((batch, channels, side, side), level),
        x=places.view(1, 1, 1, -1).expand(batch, -1, -1, -1),
        y=places.view(1, 1, -1, 1).expand(batch, -1, -1, -1),
        foreground=torch.ones(batch, 1, side, side),
        background=torch.full((1, channels, 1, 1), 0.5),
    )


def as_params(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.full((1, 1, 1, 1), float(value)) for name, value in values.items()}


def hollow(u: np.ndarray, v: np.ndarray, radius_u: float, radius_v: float) -> np.ndarray:
    """Height of a dent of unit depth: the analytic field, written independently."""
    return -(np.maximum(0.0, 1 - (u / radius_u) ** 2 - (v / radius_v) ** 2) ** 3)


def test_bump_slope_is_the_directional_derivative_of_its_height() -> None:
    rng = np.random.default_rng(0)
    u, v = rng.uniform(-12, 12, (2, 1, 1, 20, 20))
    light, step = (0.6, -0.8), 1e-4
    derivative = (
        hollow(u + step * light[0], v + step * light[1], 10, 7)
        - hollow(u - step * light[0], v - step * light[1], 10, 7)
    ) / (2 * step)
    radius = torch.tensor(10.0), torch.tensor(7.0)
    height, slope = bump(torch.from_numpy(u), torch.from_numpy(v), radius, (torch.tensor(0.6), torch.tensor(-0.8)))
    np.testing.assert_allclose(height.numpy(), -hollow(u, v, 10, 7), atol=1e-6)
    np.testing.assert_allclose(slope.numpy(), -derivative, atol=1e-5)


def test_dent_is_dark_towards_the_light_and_bright_beyond_when_matte() -> None:
    params = as_params(
        cos=1, sin=0, radius_u=14, radius_v=10, offset_u=0, offset_v=0, second=0, light_u=0.0, light_v=-1.0,
        contrast=0.5, gloss=0,
    )  # fmt: skip
    window = make_window(48)
    change = (dent(window, params).target - window.image)[0, 0].numpy()
    y, x = np.mgrid[:48, :48] + 0.5 - 24
    shading = -(hollow(x, y - 1e-3, 14, 10) - hollow(x, y + 1e-3, 14, 10)) / 2e-3  # minus the slope towards the light
    occlusion = hollow(x, y, 14, 10)
    expected = 0.5 * (0.58 * 10 * shading + 0.15 * occlusion) * 0.5
    np.testing.assert_allclose(change, expected, atol=2e-3)
    assert change[:20].sum() < 0 < change[28:].sum()


def test_stroke_distance_equals_brute_force_when_widths_vary() -> None:
    rng = np.random.default_rng(1)
    curve = rng.uniform(-12, 12, (2, 6)).astype(np.float32)
    half = rng.uniform(0.2, 3, 6).astype(np.float32)
    x, y, width = (links(torch.from_numpy(values)[None]) for values in (curve[0], curve[1], half))
    field = stroke_distance(make_window(32), x, y, width, torch.full((1, 1, 1, 1), 2.0))[0, 0].numpy()
    row, column = np.mgrid[:32, :32] + 0.5 - 16
    best = np.full((32, 32), 2.0)
    for k in range(5):
        a, b = curve[:, k].astype(float), curve[:, k + 1].astype(float)
        d = b - a
        t = np.clip(((column - a[0]) * d[0] + (row - a[1]) * d[1]) / (d @ d), 0, 1)
        reach = np.hypot(column - a[0] - t * d[0], row - a[1] - t * d[1])
        best = np.minimum(best, reach - (half[k] + t * (half[k + 1] - half[k])))
    np.testing.assert_allclose(field, best, atol=1e-4)


def test_stroke_distance_is_the_reach_when_no_stroke_is_used() -> None:
    ends = torch.zeros(2, 3, 2)
    field = stroke_distance(make_window(8, batch=2), ends, ends, ends - 1, torch.full((2, 1, 1, 1), 1.5))
    assert torch.equal(field, torch.full((2, 1, 8, 8), 1.5))


@pytest.mark.parametrize("width", [1.5, 3.0, 5.0])
def test_scratch_area_is_at_most_length_times_width_when_single(width: float) -> None:
    params = as_params(
        cos=0.8, sin=0.6, length=80, width=width, lines=1, bend=0.05, wobble=2, skip=0, depth=-0.5, burr=0, light_x=0,
        light_y=-1, noise=5,
    )  # fmt: skip
    area = float(scratch(make_window(128), params).alpha.sum())
    assert 0.3 * 80 * width < area < 1.6 * 80 * width


def test_crack_is_thin_and_longer_with_branches() -> None:
    branches = {f"{name}_{b}": value for b in range(5) for name, value in (("from", 0.5), ("cos", 0.6), ("sin", 0.8))}
    bare = as_params(cos=1, sin=0, length=90, width=2, jag=0.15, tone=-0.8, noise=3, middle_x=0, middle_y=0, **branches)
    none = as_params(**{f"length_{b}": 0 for b in range(5)})
    one = none | as_params(length_1=30)
    window = make_window(128)
    area, longer = (float((crack(window, bare | extra).alpha > 0.5).sum()) for extra in (none, one))
    assert 0.3 * 90 * 2 < area < 2.0 * 90 * 2
    assert area + 5 < longer < area + 2 * 30 * 2


def test_jagged_is_the_same_for_a_seed_in_any_batch() -> None:
    seeds = torch.tensor([3.0, 9.0, 11.0])
    together = jagged(seeds, 33)
    assert torch.equal(together[1:2], jagged(seeds[1:2], 33))
    assert together.abs().max() < 1.5
    assert not torch.equal(together[0], together[1])


def test_over_is_the_last_coat_when_it_covers() -> None:
    low, high = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4)
    layer = over((low, torch.full((1, 1, 4, 4), 0.5)), (high, torch.ones(1, 1, 4, 4)))
    torch.testing.assert_close(layer.target, high)
    half = over((low, torch.full((1, 1, 4, 4), 0.5)), (high, torch.full((1, 1, 4, 4), 0.5)))
    torch.testing.assert_close(half.target * half.alpha, 0.25 * low + 0.5 * high)
    torch.testing.assert_close(half.alpha, torch.full((1, 1, 4, 4), 0.75))


def test_shade_reaches_black_and_white_and_keeps_the_image_at_zero() -> None:
    image = torch.rand(1, 3, 4, 4)
    tones = [torch.full((1, 1, 1, 1), value) for value in (-1.0, 0.0, 1.0)]
    black, same, white = (shade(image, tone) for tone in tones)
    assert torch.equal(same, image)
    torch.testing.assert_close(black, torch.zeros_like(image))
    torch.testing.assert_close(white, torch.ones_like(image))


def test_displace_and_shift_planes_agree_when_moved_by_whole_pixels() -> None:
    image = torch.rand(1, 3, 9, 11)
    two, one = torch.full((1, 1, 9, 11), 2.0), torch.full((1, 1, 9, 11), -1.0)
    moved = shift_planes(image, two[:, :, :1, :1].expand(1, 3, 1, 1), one[:, :, :1, :1].expand(1, 3, 1, 1))
    torch.testing.assert_close(displace(image, two, one), moved, atol=1e-5, rtol=0)
    assert torch.equal(moved[..., 3, 2], image[..., 2, 4])

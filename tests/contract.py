"""The invariants of the design, once, for every generator.

A generator is tested through ``make``: a function that returns a fresh, unprepared generator of one configuration.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch

from anomalib_synth.generators import AnomalyGenerator, Condition, ProposingGenerator, build_generator

if TYPE_CHECKING:
    from collections.abc import Callable

    from anomalib_synth.sample import AnomalySample

    Make = Callable[[], AnomalyGenerator]

FIELDS = ("source", "image", "mask", "quality", "accepted")


def render_normals(count: int, channels: int, height: int, width: int, *, seed: int = 0) -> torch.Tensor:
    """Normals with texture, an edge and noise: something for every family to change."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.linspace(0, 1, height).view(1, 1, -1, 1)
    x = torch.linspace(0, 1, width).view(1, 1, 1, -1)
    shift = torch.rand(count, 1, 1, 1, generator=rng)
    stripes = 0.15 * ((12 * x + 3 * y + shift) % 1 > 0.5)
    shade = 0.35 + 0.25 * y + 0.1 * x
    noise = 0.02 * torch.rand(count, channels, height, width, generator=rng)
    return (shade + stripes + noise).expand(count, channels, height, width).clamp(0, 1).contiguous()


def assert_same(first: AnomalySample, second: AnomalySample) -> None:
    """Two samples are the same, bit for bit."""
    for name in FIELDS:
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert first.caption == second.caption
    assert first.reason == second.reason
    assert [p.to_dict() for p in first.provenance] == [p.to_dict() for p in second.provenance]


def pick(sample: AnomalySample, row: int) -> list:
    """One row of a sample, for comparison."""
    fields = [getattr(sample, name)[row] for name in FIELDS]
    return [*fields, sample.caption[row], sample.reason[row], sample.provenance[row].to_dict()]


def assert_row_equal(first: list, second: list) -> None:
    """Two rows are the same, bit for bit."""
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def check_shapes_and_types(sample: AnomalySample, images: torch.Tensor) -> None:
    """The sample has the shapes, types and ranges that are documented."""
    count, _, height, width = images.shape
    assert sample.image.shape == images.shape
    assert sample.image.dtype == images.dtype
    assert sample.image.device == images.device
    assert sample.mask.shape == (count, 1, height, width)
    assert sample.mask.dtype == torch.float32
    assert set(sample.mask.unique().tolist()) <= {0.0, 1.0}
    assert sample.quality.shape == (count,)
    assert bool(((sample.quality >= 0) & (sample.quality <= 1)).all())
    assert bool(((sample.image >= 0) & (sample.image <= 1)).all())
    assert len(sample.caption) == len(sample.reason) == len(sample.provenance) == count


def check_locality(sample: AnomalySample) -> None:
    """Where the mask is 0 the image is the source, exactly."""
    outside = (sample.mask == 0).expand_as(sample.image)
    assert torch.equal(sample.image[outside], sample.source[outside])


def check_honest_mask(sample: AnomalySample) -> None:
    """Accepted rows changed inside the mask; the others are unchanged, with a reason and no caption."""
    for row in range(len(sample)):
        if bool(sample.accepted[row]):
            inside = (sample.mask[row] > 0).expand_as(sample.image[row])
            change = (sample.image[row].float() - sample.source[row].float()).abs()[inside]
            assert float(change.mean()) >= 1 / 255
            assert sample.reason[row] == ""
            assert sample.caption[row]
            measured = sample.provenance[row].measured
            assert measured["area"] == pytest.approx(float(sample.mask[row].mean()), rel=1e-5)
            assert measured["visibility"] > 0
            assert 0 < measured["agreement"] <= 1
            assert 0 <= measured["foreground"] <= 1
        else:
            assert torch.equal(sample.image[row], sample.source[row])
            assert not sample.mask[row].any()
            assert float(sample.quality[row]) == 1.0
            assert sample.reason[row]
            assert sample.provenance[row].measured == {}


def check_labels_follow_masks(sample: AnomalySample) -> None:
    """``label``, mask and ``accepted`` agree."""
    assert torch.equal(sample.label, sample.mask.flatten(1).any(1))
    assert torch.equal(sample.label, sample.accepted)


def take(asked: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    """What a call asks for in some rows: the arguments that are one an image, and the others."""
    return {
        name: value[rows] if isinstance(value, torch.Tensor) else [value[row] for row in rows]
        for name, value in asked.items()
        if name != "mix"
    } | {name: value for name, value in asked.items() if name == "mix"}


def ask_again(sample: AnomalySample, row: int, asked: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the call that redraws a row: what its provenance says, and the region, which is an input."""
    kept = sample.provenance[row].asked
    names = {"prompt": "prompts", "prompt_to": "prompts_to"}
    again: dict[str, Any] = {names[name]: [value] for name, value in kept.items() if name in names}
    again |= {"mix": kept["mix"]} if "mix" in kept else {}
    return again | ({"masks": asked["masks"][[row]]} if "masks" in asked else {})


def check_replay(
    make: Make,
    images: torch.Tensor,
    seeds: list[int],
    prepare_with: torch.Tensor | None = None,
    *,
    asked: dict[str, Any] | None = None,
) -> None:
    """Batch, order, chunking and process leave a sample as it is; provenance is enough to redraw it.

    Some must be accepted, or nothing is tested. ``asked`` are further arguments of the call.
    """
    asked = asked or {}

    def fresh() -> AnomalyGenerator:
        generator = make()
        return generator if prepare_with is None else generator.prepare(prepare_with)

    whole = fresh()(images, seeds=seeds, **asked)
    assert whole.accepted.any(), whole.reason
    order = list(reversed(range(len(images))))
    backwards = fresh()(images[order], seeds=[seeds[row] for row in order], **take(asked, order))
    redrawn = None
    for position, row in enumerate(order):
        assert_row_equal(pick(whole, row), pick(backwards, position))
        if redrawn is None or not bool(whole.accepted[row]):  # of the accepted ones the first; the others come below
            single = fresh()(images[row : row + 1], seeds=[seeds[row]], **take(asked, [row]))
            assert_row_equal(pick(whole, row), pick(single, 0))
        if bool(whole.accepted[row]):
            provenance = whole.provenance[row]
            redrawn = build_generator(json.loads(json.dumps(provenance.config)))
            assert redrawn.config == provenance.config
            if prepare_with is not None:
                redrawn.prepare(prepare_with)
                assert redrawn.prepare_digest == provenance.prepare_digest
            again = redrawn(images[row : row + 1], seeds=[provenance.seed], **ask_again(whole, row, asked))
            assert torch.equal(again.image[0], whole.image[row])


def check_purity(make: Make, images: torch.Tensor, seeds: list[int]) -> None:
    """Inputs are not modified, and neither torch's, NumPy's nor Python's global random state moves."""
    import random

    import numpy as np

    before = images.clone()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    generator = make().prepare(images)
    sample = generator(images, seeds=seeds)
    sample.image.zero_()
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]


def check_all(make: Make, images: torch.Tensor, seeds: list[int], *, prepare_with: torch.Tensor | None = None) -> None:
    """Every invariant on one input."""
    generator = make()
    if prepare_with is not None:
        generator.prepare(prepare_with)
    sample = generator(images, seeds=seeds)
    check_shapes_and_types(sample, images)
    check_locality(sample)
    check_honest_mask(sample)
    check_labels_follow_masks(sample)


def ask_for(count: int, size: int, generator: AnomalyGenerator) -> list[dict[str, Any]]:
    """Two calls that ask for different things, as far as the generator can use them; one of nothing where it cannot."""
    asks: list[dict[str, Any]] = [{}, {}]
    masks = torch.zeros(2, count, 1, size, size)
    masks[0, ..., : size * 2 // 3, :] = masks[1, ..., size // 3 :, :] = 1
    if can_use(generator, masks=masks[0]):
        asks = [asks[0] | {"masks": masks[0]}, asks[1] | {"masks": masks[1]}]
    texts = ["a stain", "a dark scratch", "a round dent"]
    first, second = ([texts[(row + shift) % 3] for row in range(count)] for shift in (0, 1))
    if can_use(generator, prompts=first):
        asks = [asks[0] | {"prompts": first}, asks[1] | {"prompts": second}]
    if can_use(generator, prompts=second, prompts_to=first):
        asks[1] |= {"prompts_to": first, "mix": 0.5}
    return asks


def can_use(generator: AnomalyGenerator, **asked: Any) -> bool:
    """Whether a generator can use what a call would ask for."""
    return generator.can_use(Condition(**asked))


def check_asked(make: Make, images: torch.Tensor, seeds: list[int], prepare_with: torch.Tensor) -> None:
    """Regions and prompts are heeded through every wrapper; who cannot use them says so, and names who can."""
    generator = make().prepare(prepare_with)
    count = len(images)
    for word, given in {"masks": torch.ones(count, 1, *images.shape[-2:]), "prompts": ["a stain"] * count}.items():
        if not can_use(generator, **{word: given}):
            with pytest.raises(ValueError, match=rf"`{word}` must be left out for .*can, alone or in a generator"):
                generator(images, seeds=seeds, **{word: given})
    if not can_use(generator, prompts=["a stain"] * count, prompts_to=["a dent"] * count):
        with pytest.raises(ValueError, match=r"`prompts(_to)?` must be left out for"):
            generator(images, seeds=seeds, prompts=["a stain"] * count, prompts_to=["a dent"] * count)
    together = ask_for(count, images.shape[-1], generator)
    alone = [{name: given} for name, given in together[0].items()]
    for asked in [*together, *alone]:
        sample = generator(images, seeds=seeds, **asked)
        assert sample.accepted.any(), sample.reason
        for row in sample.accepted.nonzero().flatten().tolist():
            record = sample.provenance[row]
            if "masks" in asked:
                assert record.measured["foreground"] >= 0.1
                assert bool((sample.mask[row] * asked["masks"][row]).any())
            if "prompts" in asked:
                assert sample.caption[row] == record.prompt == record.asked["prompt"] == asked["prompts"][row]
                assert record.asked.get("prompt_to") == asked.get("prompts_to", [None] * count)[row]
    for asked in {frozenset(asked): asked for asked in together}.values():  # once for each kind of request
        check_replay(make, images, seeds, prepare_with, asked=asked)


def check_no_state(make: Make, images: torch.Tensor, seeds: list[int], prepare_with: torch.Tensor) -> None:
    """A call gives what it gives alone, when another comes in between, after it, or from another thread."""
    first, second = ask_for(len(images), images.shape[-1], make())
    alone = [make().prepare(prepare_with)(images, seeds=seeds, **asked) for asked in (first, second)]
    shared = make().prepare(prepare_with)
    for asked, wanted in ((first, alone[0]), (second, alone[1]), (first, alone[0])):
        assert_same(shared(images, seeds=seeds, **asked), wanted)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(shared, images, seeds=seeds, **asked) for asked in (first, second, first, second)]
        for call, wanted in zip(calls, alone * 2, strict=True):
            assert_same(call.result(), wanted)
    outer, inner = call_within_a_call(shared, images, seeds, first, second)
    assert_same(outer, alone[0])
    for sample in inner:
        assert_same(sample, alone[1])


def call_within_a_call(
    generator: AnomalyGenerator, images: torch.Tensor, seeds: list[int], first: dict[str, Any], second: dict[str, Any]
) -> tuple[AnomalySample, list[AnomalySample]]:
    """Make the second call before the first draws, and between its proposals: the two interleave without threads."""
    inner: list[AnomalySample] = []
    busy = False

    def call() -> None:
        nonlocal busy
        if not busy and len(inner) < 3:
            busy = True
            inner.append(generator(images, seeds=seeds, **second))
            busy = False

    def draw(original: Any, *arguments: Any) -> AnomalySample:
        call()
        return original(*arguments)

    def propose(original: Any, *arguments: Any) -> Any:
        call()
        for proposal in original(*arguments):
            call()
            yield proposal

    for part in generator.walk():
        name, between = ("propose", propose) if isinstance(part, ProposingGenerator) else ("draw", draw)
        setattr(part, name, partial(between, getattr(part, name)))
    return generator(images, seeds=seeds, **first), inner


def check_contract(make: Make, *, size: int = 64, least: float = 0.5) -> None:
    """Everything, on normals with structure: what a generator must keep to be one.

    Args:
        make: Makes a fresh generator.
        size: Side of the images.
        least: Share of the draws that must be accepted: one that gives every image back keeps all other invariants.
    """
    images, normals = render_normals(4, 3, size, size), render_normals(6, 3, size, size, seed=1)
    seeds = [3, 1, 4, 15]
    sample = make().prepare(normals)(images[[0, 1, 2, 3] * 3], seeds=range(12))
    assert float(sample.accepted.float().mean()) >= least, sample.reason
    check_all(make, images, seeds, prepare_with=normals)
    check_replay(make, images, seeds, normals)
    check_purity(make, images, seeds)
    check_asked(make, images, seeds, normals)
    check_no_state(make, images[:2], seeds[:2], normals)

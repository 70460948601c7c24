"""The edit: gate, context on all sides, strength, and the draw of tokens."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch

from anomalib_synth.models.editing import Edit, LocalBackend, Sampling, Template, edit_window
from tests.unit.models.small_bundle import make_models, vocabulary


@pytest.fixture(scope="module")
def backend() -> LocalBackend:
    models = make_models()
    with torch.no_grad():  # so that what is untrained differs enough to matter
        for head in models["token_model"].heads:
            head.weight.mul_(8)
        for conv in models["token_model"].context.rest:
            conv.weight.mul_(4)
    return LocalBackend(models["tokenizer"], models["token_model"], vocabulary())


@pytest.fixture
def blind(backend) -> LocalBackend:
    """The models, as if they had learned from what is around a mask alone."""
    model = copy.copy(backend.model)
    model.context_only = True
    return LocalBackend(backend.tokenizer, model, vocabulary())


def draw_window(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def block() -> torch.Tensor:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 26:38, 22:42] = 1
    return mask


def edit(backend: LocalBackend, image: torch.Tensor, mask: torch.Tensor | None = None, **options) -> Edit:
    options = {"prompt": "a dark scratch", "seed": 3, "sampling": Sampling(), **options}
    return edit_window(backend, image, block() if mask is None else mask, **options)


def test_tokens_outside_are_the_sources_at_every_scale(backend) -> None:
    result = edit(backend, draw_window())
    changed = 0
    for scale, (drawn, source) in enumerate(zip(result.tokens, result.source, strict=True)):
        gate = backend.gate(block(), scale)
        if scale < backend.frozen_scales:
            assert torch.equal(drawn, source)
        assert torch.equal(drawn[~gate], source[~gate])
        changed += int((drawn != source).sum())
    assert changed > 50
    assert result.leakage > 0


def test_an_empty_mask_returns_the_input(backend) -> None:
    image = draw_window()
    result = edit(backend, image, torch.zeros(1, 1, 64, 64))
    assert torch.equal(result.image, image)
    assert all(torch.equal(a, b) for a, b in zip(result.tokens, result.source, strict=True))


@pytest.mark.parametrize(
    "side",
    [
        (slice(0, 20), slice(None)),
        (slice(44, 64), slice(None)),
        (slice(None), slice(0, 16)),
        (slice(None), slice(48, 64)),
    ],
    ids=["top", "bottom", "left", "right"],
)
def test_context_on_each_side_changes_what_is_drawn(backend, side) -> None:
    image = draw_window()
    other = image.clone()
    other[..., side[0], side[1]] = 1 - other[..., side[0], side[1]]
    first, second = edit(backend, image), edit(backend, other)
    different = 0
    for scale in range(backend.frozen_scales, backend.num_scales):
        gate = backend.gate(block(), scale)
        different += int((first.tokens[scale] != second.tokens[scale])[gate].sum())
    assert different > 0


def change_where(image: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    return torch.where(where > 0, draw_window(9), image)


def gated(backend: LocalBackend, result: Edit) -> torch.Tensor:
    """The tokens that were drawn."""
    scales = range(backend.frozen_scales, backend.num_scales)
    return torch.cat([result.tokens[scale][backend.gate(block(), scale)] for scale in scales])


def test_no_token_depends_on_what_was_in_the_mask_when_the_models_learned_from_what_is_around(backend, blind) -> None:
    image = draw_window()
    inside, around = change_where(image, block()), change_where(image, 1 - block())
    drawn = gated(blind, edit(blind, image))
    assert torch.equal(drawn, gated(blind, edit(blind, inside)))
    assert not torch.equal(drawn, gated(blind, edit(blind, around)))
    assert not torch.equal(gated(backend, edit(backend, image)), gated(backend, edit(backend, inside)))


def test_what_was_there_stays_when_strength_falls_and_tokens_outside_are_the_sources(blind) -> None:
    image = draw_window()
    changes = [(edit(blind, image, strength=s).image - image).abs().mean() for s in (0, 0.25, 0.5, 0.75, 1)]
    assert changes[0] == 0
    assert all(a < b for a, b in itertools.pairwise(changes))
    result = edit(blind, image)
    _, source = blind.encode(image)
    for scale, (drawn, kept) in enumerate(zip(result.tokens, source, strict=True)):
        outside = ~blind.gate(block(), scale) if scale >= blind.frozen_scales else torch.ones_like(kept, dtype=bool)
        assert torch.equal(drawn[outside], kept[outside])


def test_more_than_the_mask_has_no_influence_when_more_is_hidden(blind) -> None:
    image, hidden = draw_window(), torch.zeros(1, 1, 64, 64)
    hidden[..., 20:50, 10:60] = 1
    drawn = gated(blind, edit(blind, image, hidden=hidden))
    assert torch.equal(drawn, gated(blind, edit(blind, change_where(image, hidden), hidden=hidden)))
    assert not torch.equal(drawn, gated(blind, edit(blind, change_where(image, hidden))))


def test_text_changes_what_is_drawn_and_guidance_of_zero_ignores_it(backend) -> None:
    image = draw_window()
    texts = ["a dark scratch", "a large round dent"]
    first, second = (edit(backend, image, prompt=text) for text in texts)
    assert not torch.equal(first.image, second.image)
    first, second = (edit(backend, image, prompt=text, sampling=Sampling(guidance=0)) for text in texts)
    assert torch.equal(first.image, second.image)


def test_the_same_seed_draws_the_same_and_another_another(backend) -> None:
    image = draw_window()
    assert torch.equal(edit(backend, image).image, edit(backend, image).image)
    assert not torch.equal(edit(backend, image).image, edit(backend, image, seed=4).image)


def test_strength_goes_from_the_source_to_the_edit(backend) -> None:
    image = draw_window()
    changes = [(edit(backend, image, strength=s).image - image).abs().mean() for s in (0, 0.25, 0.5, 0.75, 1)]
    assert changes[0] == 0
    assert all(a < b for a, b in itertools.pairwise(changes))


def test_mix_goes_from_one_prompt_to_the_other(backend) -> None:
    image = draw_window()
    mixed = {mix: edit(backend, image, prompt_to="a large round dent", mix=mix).image for mix in (0, 0.5, 1)}
    assert torch.equal(mixed[0], edit(backend, image).image)
    assert torch.equal(mixed[1], edit(backend, image, prompt="a large round dent").image)
    assert not torch.equal(mixed[0.5], mixed[0])


def trace(backend: LocalBackend, image: torch.Tensor, shown: torch.Tensor) -> list[torch.Tensor]:
    """The tokens of a window with those of another one in the mask, scale by scale, worked out on its own."""
    tokenizer = backend.tokenizer
    source, _ = tokenizer.tokenize(tokenizer.encode(image))
    z, f, tokens = tokenizer.encode(shown), 0, []
    for scale, kept in enumerate(source):
        mixed = kept.clone()
        if scale >= backend.frozen_scales:
            gate = tokenizer.gate(block(), scale)
            mixed[gate] = tokenizer.quantize(z - f, scale)[gate]
        tokens.append(mixed)
        f = f + tokenizer.embed(mixed, scale)
    return tokens


def test_the_tokens_are_the_templates_when_nothing_varies(backend) -> None:
    image, shown = draw_window(), draw_window(1)
    result = edit(backend, image, template=Template(image=shown, variation=0))
    expected = trace(backend, image, shown)
    assert all(torch.equal(a, b) for a, b in zip(result.tokens, expected, strict=True))
    assert not torch.equal(result.image, image)


def test_the_edit_is_that_without_a_template_when_everything_varies(backend) -> None:
    image = draw_window()
    result = edit(backend, image, template=Template(image=draw_window(1), variation=1))
    assert torch.equal(result.image, edit(backend, image).image)


def test_the_coarse_tokens_stay_when_some_vary_and_those_that_vary_stay_varied_with_more(backend) -> None:
    image, shown = draw_window(), draw_window(1)
    kept = trace(backend, image, shown)
    scales = range(backend.frozen_scales, backend.num_scales)  # five
    shares = {}
    for variation in (0.2, 0.5, 0.8):
        result = edit(backend, image, template=Template(image=shown, variation=variation))
        for scale, (drawn, source) in enumerate(zip(result.tokens, result.source, strict=True)):
            outside = ~backend.gate(block(), scale)
            assert torch.equal(drawn[outside], source[outside])
        changed = [(result.tokens[k] != kept[k])[backend.gate(block(), k)].float().mean() for k in scales]
        shares[variation] = [float(share) for share in changed]
    assert shares[0.2][:4] == [0, 0, 0, 0]
    assert shares[0.2][4] > 0.8
    assert shares[0.5][:2] == [0, 0]
    assert 0.2 < shares[0.5][2] < 0.8
    assert shares[0.8][0] == 0
    assert min(shares[0.8][2:]) > 0.5


def test_an_empty_mask_returns_the_input_when_there_is_a_template(backend) -> None:
    template = Template(image=draw_window(1), variation=0.5)
    result = edit(backend, draw_window(), torch.zeros(1, 1, 64, 64), template=template)
    assert torch.equal(result.image, draw_window())


def test_gumbel_draws_follow_the_softmax() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).log_softmax(0)
    noise = torch.rand(40_000, 4, generator=torch.Generator().manual_seed(0)).clamp_min(1e-9)
    drawn = Sampling(top_p=1.0, temperature=1.0).choose(logits.expand(40_000, -1), noise)
    shares = torch.bincount(drawn, minlength=4) / 40_000
    torch.testing.assert_close(shares, logits.exp(), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("options", "kept"), [({"top_p": 0.6}, {0}), ({"top_p": 0.8}, {0, 1}), ({"top_k": 3, "top_p": 1.0}, {0, 1, 2})]
)
def test_top_k_and_top_p_leave_out_the_unlikely(options, kept) -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).expand(5000, -1)  # probabilities .64 .24 .09 .03
    noise = torch.rand(5000, 4, generator=torch.Generator().manual_seed(0)).clamp_min(1e-9)
    assert set(Sampling(**{"temperature": 1.0, **options}).choose(logits, noise).tolist()) == kept


@pytest.mark.parametrize(
    ("name", "value"), [("guidance", -1), ("temperature", 0), ("top_k", -1), ("top_p", 0), ("top_p", 1.5)]
)
def test_bad_sampling_is_refused(name, value) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        Sampling(**{name: value})

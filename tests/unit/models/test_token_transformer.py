"""The token transformer: who sees whom, and that packing changes nothing."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.models.token_transformer import Packing, Queries, TokenTransformer, rotate, rotation
from tests.unit.models.small_bundle import make_models, vocabulary

STRIDES = (16, 8, 4, 2, 1, 1, 1)


@pytest.fixture(scope="module")
def model() -> TokenTransformer:
    return make_models()["token_model"]


def ask(model: TokenTransformer, mask: torch.Tensor, f: torch.Tensor, z: torch.Tensor, scales=range(2, 7)) -> Queries:
    """Queries of some scales for masks (B, 1, g, g) on the grid of latents."""
    context = model.look(z, mask)
    gates = {s: torch.nn.functional.max_pool2d(mask, STRIDES[s])[:, 0] > 0 for s in scales}
    return Queries.join([Queries.at(gates[s], f, context, scale=s, stride=STRIDES[s]) for s in scales])


def draw(count: int) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(0)
    mask = torch.zeros(count, 1, 16, 16)
    for row in range(count):
        mask[row, :, 4 : 7 + row, 5:9] = 1
    return mask, torch.randn(count, 8, 16, 16, generator=rng), torch.randn(count, 8, 16, 16, generator=rng)


def test_a_window_does_not_depend_on_the_others_in_its_batch(model) -> None:
    mask, f, z = draw(3)
    text = model.read(vocabulary().encode(["a dark scratch", "a stain", ""], length=16))
    queries = ask(model, mask, f, z)
    together = model(queries, text)
    for row in range(3):
        alone = ask(model, mask[[row]], f[[row]], z[[row]])
        own = model(alone, tuple(each[[row]] for each in text))
        torch.testing.assert_close(together[queries.window == row], own, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("cells", "differ"), [(1, False), (4, True)])
def test_where_in_a_latent_a_line_runs_is_seen_when_the_mask_has_cells(cells, differ) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TokenTransformer(
            channels=8, codebook_size=32, num_scales=7, vocabulary_size=8, dim=32, depth=1, heads=2, mask_cells=cells
        )
    z, looks = torch.zeros(1, 8, 16, 16), []
    for row in (20, 22):
        mask = torch.zeros(1, 1, 64, 64)
        mask[..., row, 8:40] = 1
        looks.append(model.look(z, torch.nn.functional.max_pool2d(mask, 4 // cells)))
    assert torch.equal(*looks) is not differ


def test_coarse_tokens_do_not_see_finer_ones(model) -> None:
    mask, f, z = draw(1)
    text = model.read(vocabulary().encode(["a dark scratch"], length=16))
    whole = model(ask(model, mask, f, z), text)
    for last in (2, 3, 4):
        few = ask(model, mask, f, z, range(2, last + 1))
        torch.testing.assert_close(model(few, text), whole[: len(few.window)], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(model(few, text, last_scale=last), whole[: len(few.window)][few.scale == last],
                                   atol=2e-5, rtol=1e-4)  # fmt: skip


def test_tokens_see_coarser_ones_text_and_both_kinds_of_input(model) -> None:
    mask, f, z = draw(1)
    words = vocabulary().encode(["a dark scratch"], length=16)
    queries = ask(model, mask, f, z)
    finest = queries.scale == 6
    logits = model(queries, model.read(words))[finest]
    changes = {
        "text": model(queries, model.read(vocabulary().encode(["a round dent"], length=16))),
        "source": model(ask(model, mask, f, z + 0.1), model.read(words)),
        "latents": model(ask(model, mask, f + 0.1, z), model.read(words)),
        "coarse": model(
            Queries(
                torch.where((queries.scale == 2)[:, None], queries.features + 1, queries.features),
                queries.context, queries.window, queries.scale, queries.place,
            ),
            model.read(words),
        ),
    }  # fmt: skip
    for name, changed in changes.items():
        assert (changed[finest] - logits).abs().max() > 1e-4, name


def test_padding_of_a_text_changes_nothing(model) -> None:
    mask, f, z = draw(1)
    queries = ask(model, mask, f, z)
    long = model(queries, model.read(vocabulary().encode(["a dark scratch"], length=16)))
    short = model(
        queries, tuple(each[:, :4] for each in model.read(vocabulary().encode(["a dark scratch"], length=16)))
    )
    torch.testing.assert_close(long, short, atol=1e-5, rtol=1e-4)


def test_packing_comes_back_in_order() -> None:
    window = torch.tensor([0, 2, 2, 0, 1])
    pack = Packing(window, torch.tensor([2, 2, 3, 3, 2]))
    values = torch.arange(5.0)
    assert torch.equal(pack.gather(pack.spread(values)), values)
    assert pack.spread(values)[2].tolist() == [1.0, 2.0]
    assert pack.sees[0].tolist() == [[True, False], [True, True]]


def test_rotation_makes_products_depend_on_distance_alone() -> None:
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)
    products = []
    for shift in (0.0, 7.5):
        at = [rotation(torch.tensor([[place]]) + shift, 16) for place in ([1.0, 2.0], [4.0, 3.0])]
        products.append(float((rotate(q, at[0]) * rotate(k, at[1])).sum()))
    assert products[0] == pytest.approx(products[1], abs=1e-4)


@pytest.mark.parametrize(("name", "value"), [("frozen_scales", 7), ("dim", 30)])
def test_bad_sizes_are_refused(name, value) -> None:
    sizes = {"channels": 8, "codebook_size": 32, "num_scales": 7, "vocabulary_size": 9, "dim": 32, "heads": 2}
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        TokenTransformer(**{**sizes, name: value})

"""Janus of transformers behind the protocol of a local edit, on a tiny checkpoint in the released format."""

from __future__ import annotations

import builtins
import json

import pytest
import torch

from anomalib_synth.generators import AutoregressiveGenerator
from anomalib_synth.models.editing import Sampling, Template, edit_window
from anomalib_synth.models.janus import JanusBackend, JanusCheckpoint
from tests.unit.models.small_janus import make_janus

pytest.importorskip("transformers", reason="the extra `janus` is not installed")
GREEDY = Sampling(guidance=3.0, top_k=1, top_p=1.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> JanusCheckpoint:
    return JanusCheckpoint(make_janus(tmp_path_factory.mktemp("janus")))


@pytest.fixture(scope="module")
def backend(checkpoint) -> JanusBackend:
    return checkpoint.backend()


def draw_window(side: int = 64) -> torch.Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))


def block(side: int = 64) -> torch.Tensor:
    mask = torch.zeros(1, 1, side, side)
    mask[..., side // 4 + 1 : side // 2 + 2, side // 4 + 1 : side // 2] = 1
    return mask


def test_a_full_mask_draws_what_the_model_generates(backend) -> None:
    edit = edit_window(backend, draw_window(), torch.ones(1, 1, 64, 64), "a dark scratch", seed=0, sampling=GREEDY)
    text = "A close-up photo of a surface with a dark scratch."
    asked = backend.processor(text=[text], generation_mode="image", return_tensors="pt")
    backend.model.generation_config.generation_kwargs = {"boi_token_id": backend.processor.tokenizer.boi_token_id}
    expected = backend.model.generate(**asked, generation_mode="image", do_sample=False, guidance_scale=3.0)
    assert edit.tokens[0].flatten().tolist() == expected[0].tolist()
    assert len(set(expected[0].tolist())) > 2


def test_only_tokens_under_the_mask_change(backend) -> None:
    edit = edit_window(backend, draw_window(), block(), "a dark scratch", seed=1, sampling=Sampling())
    touched = torch.zeros(1, 4, 4, dtype=torch.bool)
    touched[:, 1:3, 1:2] = True
    assert torch.equal(edit.tokens[0][~touched], edit.source[0][~touched])
    assert not torch.equal(edit.tokens[0], edit.source[0])


def test_tokens_before_the_mask_decide_what_is_drawn(backend) -> None:
    """What was fed token by token is what one pass over all tokens gives."""
    window = draw_window()
    edit = edit_window(backend, window, block(), "a dark scratch", seed=1, sampling=GREEDY)
    drawn = edit.tokens[0].flatten()
    z, _ = backend.encode(window)
    for position in (5, 9):
        begun = backend.begin(z, block(), ["", "a dark scratch"])
        gate = torch.zeros(1, 4, 4, dtype=torch.bool)
        gate.flatten()[position] = True
        null, text = backend.logits(begun, z, edit.tokens[0], gate, 0)
        assert int((null + 3.0 * (text - null)).argmax()) == int(drawn[position])
        other = edit.source[0].clone()
        other.flatten()[0] = (other.flatten()[0] + 1) % 32
        changed = backend.logits(backend.begin(z, block(), ["", "a dark scratch"]), z, other, gate, 0)
        assert not torch.allclose(changed[1], text, atol=1e-4)


def test_the_tokens_are_the_templates_when_nothing_varies_and_others_when_all_do(backend) -> None:
    shown = draw_window().flip(3)
    _, (own,) = backend.encode(shown)
    touched = torch.zeros(1, 4, 4, dtype=torch.bool)
    touched[:, 1:3, 1:2] = True

    def edit(variation: float | None) -> torch.Tensor:
        template = None if variation is None else Template(image=shown, variation=variation)
        options = {"seed": 1, "sampling": Sampling(), "template": template}
        result = edit_window(backend, draw_window(), block(), "a dark scratch", **options)
        assert torch.equal(result.tokens[0][~touched], result.source[0][~touched])
        return result.tokens[0]

    assert torch.equal(edit(0)[touched], own[touched])
    assert torch.equal(edit(1), edit(None))


def test_texts_of_different_length_are_read_as_alone(backend) -> None:
    z, tokens = backend.encode(draw_window())
    gate = torch.zeros(1, 4, 4, dtype=torch.bool)
    gate[0, 1, 1] = True
    texts = ["a dark scratch", "a bright thin scratch with a dark surface"]
    both = backend.logits(backend.begin(z, block(), ["", *texts]), z, tokens[0], gate, 0)
    for number, text in enumerate(texts):
        alone = backend.logits(backend.begin(z, block(), ["", text]), z, tokens[0], gate, 0)
        torch.testing.assert_close(alone[1], both[1 + number], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(both[1], both[2], atol=1e-3)


def test_tokens_are_the_nearest_on_the_unit_sphere(backend) -> None:
    z, (tokens,) = backend.encode(draw_window())
    near = z[0, :, 2, 3] / z[0, :, 2, 3].norm()
    book = backend.vq.quantize.embedding.weight
    distances = (book / book.norm(dim=1, keepdim=True) - near).norm(dim=1)
    assert int(tokens[0, 2, 3]) == int(distances.argmin())
    expected = backend.vq.quantize.get_codebook_entry(tokens.flatten(1))
    torch.testing.assert_close(backend.embed(tokens, 0), expected)


@pytest.mark.parametrize("side", [64, 128])
def test_windows_of_any_size_come_back_in_it(backend, side) -> None:
    edit = edit_window(backend, draw_window(side), block(side), "a hole", seed=2, sampling=Sampling())
    assert edit.image.shape == (1, 3, side, side)
    none = edit_window(backend, draw_window(side), block(side), "a hole", seed=2, sampling=Sampling(), strength=0.0)
    torch.testing.assert_close(none.image, draw_window(side), atol=1e-6, rtol=0)


def test_a_chat_template_is_applied(tmp_path) -> None:
    template = "{% for m in messages %}dark {{ m['content'][0]['text'] }}{% endfor %}"
    backend = JanusCheckpoint(make_janus(tmp_path, chat_template=template)).backend()
    assert backend._instruct("a hole") == "dark A close-up photo of a surface with a hole."


def test_the_generator_draws_with_it(checkpoint) -> None:
    generator = AutoregressiveGenerator(["a dark stain"], bundle=checkpoint.path, foreground=None, size=(0.2, 0.4))
    images = draw_window(96)[0].mul(0.1).add(0.4).expand(2, -1, -1, -1)
    first, again = (generator(images, seeds=[4, 5]) for _ in range(2))
    assert first.accepted.any()
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.image[~first.mask.bool().expand_as(images)], images[~first.mask.bool().expand_as(images)])
    assert generator.weights_hash == checkpoint.weights_hash


def test_the_digest_is_of_the_contents(tmp_path, checkpoint) -> None:
    copy = make_janus(tmp_path / "copy")
    assert JanusCheckpoint(copy).weights_hash == checkpoint.weights_hash
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"initializer_range": 0.5}))
    assert JanusCheckpoint(copy).weights_hash != checkpoint.weights_hash


def test_other_folders_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="no Janus model of transformers"):
        JanusCheckpoint(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "janus"}')
    with pytest.raises(ValueError, match=r"holds no \*\.safetensors"):
        _ = JanusCheckpoint(tmp_path).weights_hash
    with pytest.raises(ValueError, match=r"`model` in .* must hold the \d+ weights") as refused:
        JanusCheckpoint(tmp_path).backend()
    assert str(refused.value).count("Fetch it again") == 1


def test_without_transformers_the_error_names_the_extra(checkpoint, monkeypatch) -> None:
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "transformers":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install .*\[janus\]"):
        checkpoint.backend()

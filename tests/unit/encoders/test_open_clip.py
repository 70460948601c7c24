"""Pretrained encoders of open_clip: with a stand-in of the library, and with the library where it is installed."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from anomalib_synth.encoders.open_clip import split_name
from anomalib_synth.quality import ImageTextScorer, OpenClipDualEncoder

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)


class StandIn(torch.nn.Module):
    """A model of open_clip as this package uses it; keeps what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(4))
        self.visual = SimpleNamespace(image_size=(24, 24), image_mean=MEAN, image_std=STD)
        self.seen: list[torch.Tensor] = []

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        return images.mean((2, 3)) * 7

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.float()[:, :3] + 1


def make_library(calls: list[tuple], fails: str = "") -> SimpleNamespace:
    def create_model(name, *, pretrained, precision, require_pretrained):
        calls.append((name, pretrained))
        assert precision == "fp32"
        assert require_pretrained
        if fails:
            raise RuntimeError(fails)
        return StandIn()

    def tokenize(texts):
        return torch.tensor([[len(text), 2, 3, 4] for text in texts])

    return SimpleNamespace(create_model=create_model, get_tokenizer=lambda name: tokenize)


@pytest.fixture
def calls(monkeypatch) -> list[tuple]:
    made: list[tuple] = []
    monkeypatch.setitem(sys.modules, "open_clip", make_library(made))
    return made


def test_nothing_is_loaded_before_it_is_used(calls) -> None:
    encoder = OpenClipDualEncoder("ViT-B-32", "openai")
    assert calls == []
    assert encoder.image_size == 24
    assert calls == [("ViT-B-32", "openai")]


def test_the_models_mean_and_deviation_are_applied_once(calls) -> None:
    encoder = OpenClipDualEncoder("ViT-B-32", "openai")
    images = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    vectors = encoder.encode_images(images)
    wanted = torch.stack([(images[:, c] - MEAN[c]) / STD[c] for c in range(3)], 1)
    assert torch.allclose(encoder.model.seen[0], wanted, atol=1e-6)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(2))
    assert torch.allclose(encoder.encode_captions(["ab"])[0], torch.tensor([3.0, 3.0, 4.0]) / 34**0.5)


def test_it_scores(calls) -> None:
    mask = torch.ones(2, 1, 40, 30)
    scores = ImageTextScorer(OpenClipDualEncoder("ViT-B-32", "openai"))(torch.rand(2, 3, 40, 30), mask, ["a", "abcd"])
    assert bool(((scores >= 0) & (scores <= 1)).all())


def test_loading_leaves_the_random_state(calls) -> None:
    state = torch.get_rng_state()
    _ = OpenClipDualEncoder("ViT-B-32", "openai").model
    assert torch.equal(torch.get_rng_state(), state)


def test_the_digest_follows_the_weights(calls, tmp_path) -> None:
    first, second = tmp_path / "first.bin", tmp_path / "second.bin"
    first.write_bytes(b"weights")
    second.write_bytes(b"Weights")
    digests = {OpenClipDualEncoder("ViT-B-32", file).weights_hash for file in (first, second)}
    digests.add(OpenClipDualEncoder("ViT-B-16", first).weights_hash)
    assert len(digests) == 3
    assert calls == []  # a file is hashed, not loaded
    tagged = OpenClipDualEncoder("ViT-B-32", "openai")
    before = tagged.weights_hash
    del tagged.weights_hash
    with torch.no_grad():
        tagged.model.weight[0] += 1
    assert tagged.weights_hash != before


def test_missing_library_names_the_remedies(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    encoder = OpenClipDualEncoder("ViT-B-32", "openai")
    with pytest.raises(ImportError, match=r"pip install .*\[clip\].*encoder: null"):
        encoder.encode_captions(["a"])


def test_missing_weights_name_the_remedies(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", make_library([], fails="no route to host"))
    encoder = OpenClipDualEncoder("ViT-B-32", "openai")
    with pytest.raises(OSError, match=r"openai of ViT-B-32 \(no route to host\).*name a weight file"):
        _ = encoder.image_size


def test_names_without_weights_or_with_too_many_are_refused() -> None:
    with pytest.raises(ValueError, match="`pretrained` must name weights for 'ViT-B-32'"):
        OpenClipDualEncoder("ViT-B-32")
    with pytest.raises(ValueError, match="`pretrained` must be None"):
        OpenClipDualEncoder("hf-hub:org/name", "openai")


def test_a_path_may_have_colons() -> None:
    assert split_name("ViT-B-32:C:/weights.bin") == ("ViT-B-32", "C:/weights.bin")
    assert split_name("ViT-B-32") == ("ViT-B-32", None)
    assert split_name("hf-hub:org/name") == ("hf-hub:org/name", None)


def test_the_library_itself_loads_a_weight_file(tmp_path) -> None:
    open_clip = pytest.importorskip("open_clip")
    tiny = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    (tmp_path / "tiny-test.json").write_text(json.dumps(tiny))
    open_clip.add_model_config(tmp_path / "tiny-test.json")
    weights = tmp_path / "weights.pt"
    torch.save(open_clip.create_model("tiny-test").state_dict(), weights)
    encoder = OpenClipDualEncoder("tiny-test", weights)
    assert encoder.image_size == 32
    model, _, preprocess = open_clip.create_model_and_transforms("tiny-test", pretrained=str(weights))
    from torchvision.transforms.functional import to_pil_image

    levels = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        theirs = model.eval().encode_image(preprocess(to_pil_image(levels))[None], normalize=True)
        text = model.encode_text(open_clip.get_tokenizer("tiny-test")(["a scratch"]), normalize=True)
        assert torch.allclose(encoder.encode_images(levels[None] / 255), theirs, atol=1e-5)
        assert torch.allclose(encoder.encode_captions(["a scratch"]), text, atol=1e-5)
    with pytest.raises(OSError, match="Without network, name a weight file"):
        _ = OpenClipDualEncoder("tiny-test", tmp_path / "missing.pt").model

"""The local models in one folder: weights as safetensors, everything else as JSON."""

from __future__ import annotations

import json
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load, save

from anomalib_synth.models.captions import CaptionReader, CaptionVocabulary
from anomalib_synth.models.dual_encoder import DualEncoder
from anomalib_synth.models.editing import LocalBackend
from anomalib_synth.models.token_transformer import TokenTransformer
from anomalib_synth.models.tokenizer import WindowTokenizer

if TYPE_CHECKING:
    from torch import nn

FORMAT = 1
DEFAULT = Path(__file__).parent / "default_bundle"
_CLASSES = {"tokenizer": WindowTokenizer, "token_model": TokenTransformer, "dual_encoder": DualEncoder}


class Bundle:
    """A folder written by ``anomalib-synth fit``; its models are loaded when they are asked for.

    Layout: ``bundle.json`` (format, vocabulary, the models' arguments, the card) and ``<model>.safetensors``.

    Args:
        path: The folder.

    Raises:
        ValueError: If it is no bundle, is of a newer format, or a file does not fit.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self.head = json.loads((self.path / "bundle.json").read_text(encoding="utf-8"))
            version, words = self.head["format"], self.head["vocabulary"]
        except FileNotFoundError as error:
            msg = f"{str(path)!r} is no bundle: it has no bundle.json. Make one with `anomalib-synth fit --out`."
            raise ValueError(msg) from error
        except (ValueError, KeyError, TypeError) as error:
            msg = f"{str(self.path / 'bundle.json')!r} is damaged ({error!r}). Fit the bundle again."
            raise ValueError(msg) from error
        if version != FORMAT:
            msg = f"{str(path)!r} has format {version}, this version reads format {FORMAT}. Upgrade anomalib-synth."
            raise ValueError(msg)
        self.vocabulary = CaptionVocabulary(words)

    @property
    def card(self) -> dict[str, Any]:
        """What it was trained on, how, and how well it does."""
        return self.head["card"]

    @cached_property
    def weights_hash(self) -> str:
        """Digest of everything samples depend on: weights, arguments and vocabulary."""
        digest = blake2b(digest_size=16)
        read = [self.head["vocabulary"], self.head["models"], *filter(None, [self.text_encoder])]
        digest.update(json.dumps(read, sort_keys=True).encode())
        for name in sorted(self.head["models"]):
            digest.update(blake2b(self._read(name), digest_size=16).digest())
        return digest.hexdigest()

    def tokenizer(self) -> WindowTokenizer:
        """Return the tokenizer, in float32 and evaluation mode; as for the others."""
        return self._load("tokenizer")

    def token_model(self) -> TokenTransformer:
        """Return the token transformer."""
        return self._load("token_model")

    @property
    def text_encoder(self) -> dict[str, str] | None:
        """Name and digest of the pretrained encoder that reads the token model's texts; None for the vocabulary."""
        return self.head.get("text_encoder")

    def backend(self, reader: CaptionReader | None = None) -> LocalBackend:
        """Return tokenizer and token transformer as what draws an edit.

        Args:
            reader: Reads the texts where the bundle names a ``text_encoder``; None for its own vocabulary.
        """
        return LocalBackend(self.tokenizer(), self.token_model(), reader or self.vocabulary)

    def dual_encoder(self) -> DualEncoder:
        """Return the dual encoder."""
        return self._load("dual_encoder")

    def _load(self, name: str) -> nn.Module:
        if name not in self.head["models"]:
            msg = f"Bundle {str(self.path)!r} has no {name}. Fit it again."
            raise ValueError(msg)
        with torch.device("meta"):  # draws no random weights
            model = _CLASSES[name](**self.head["models"][name])
        try:
            model.load_state_dict({key: value.float() for key, value in load(self._read(name)).items()}, assign=True)
        except Exception as error:
            msg = f"{str(self.path / f'{name}.safetensors')!r} does not fit its bundle ({error}). Fit the bundle again."
            raise ValueError(msg) from error
        return model.eval().requires_grad_(False)

    def _read(self, name: str) -> bytes:
        path = self.path / f"{name}.safetensors"
        try:
            return path.read_bytes()
        except OSError as error:
            msg = f"{str(path)!r} cannot be read ({error.strerror}). Fit the bundle again."
            raise ValueError(msg) from error


def load_bundle(path: Path | str | None = None) -> Bundle:
    """Return a bundle; None is the one that comes with the package."""
    return Bundle(DEFAULT if path is None else path)


def save_bundle(
    path: Path,
    models: dict[str, nn.Module],
    vocabulary: CaptionVocabulary,
    card: dict[str, Any],
    *,
    text_encoder: dict[str, str] | None = None,
    half: bool = True,
) -> Bundle:
    """Write a bundle.

    Args:
        path: The folder.
        models: By name: ``tokenizer``, ``token_model``, ``dual_encoder``; each with its arguments as ``config``.
        vocabulary: Words of the captions.
        card: Plain data.
        text_encoder: Name and ``weights_hash`` of the pretrained encoder of the token model's texts, if there is one.
        half: Whether to keep weights in half precision.
    """
    path.mkdir(parents=True, exist_ok=True)
    kind = torch.float16 if half else torch.float32
    for name, model in models.items():
        state = {key: value.detach().cpu().to(kind).contiguous() for key, value in model.state_dict().items()}
        (path / f"{name}.safetensors").write_bytes(save(state))
    head = {
        "format": FORMAT,
        "vocabulary": vocabulary.words,
        "models": {name: model.config for name, model in models.items()},
        **({"text_encoder": text_encoder} if text_encoder else {}),
        "card": card,
    }
    (path / "bundle.json").write_text(json.dumps(head, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return Bundle(path)

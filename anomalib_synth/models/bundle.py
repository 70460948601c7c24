"""The local models in one folder: weights as safetensors, everything else as JSON."""

from __future__ import annotations

import json
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from anomalib_synth.models.bundle_head import FORMAT, read_head
from anomalib_synth.models.captions import CaptionReader, CaptionVocabulary
from anomalib_synth.models.completeness import describe_misfit
from anomalib_synth.models.dual_encoder import DualEncoder
from anomalib_synth.models.editing import LocalBackend
from anomalib_synth.models.token_transformer import TokenTransformer
from anomalib_synth.models.tokenizer import WindowTokenizer

if TYPE_CHECKING:
    from torch import nn

DEFAULT = Path(__file__).parent / "default_bundle"
_CLASSES = {"tokenizer": WindowTokenizer, "token_model": TokenTransformer, "dual_encoder": DualEncoder}
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MOST_BYTES = 8  # per weight
_MOST_HEADER = 2**24


class Bundle:
    """A folder written by ``anomalib-synth fit``; each model is loaded when it is requested.

    Layout: ``bundle.json`` (format, vocabulary, the models' arguments, the card) and one ``<model>.safetensors`` per
    model.

    Args:
        path: The folder.

    Raises:
        ValueError: If the folder is not a bundle, has a newer format or a damaged ``bundle.json``; on loading a model,
            if its file is missing or does not fit.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.head = read_head(self.path / "bundle.json")
        self.vocabulary = CaptionVocabulary(self.head["vocabulary"])

    @property
    def card(self) -> dict[str, Any]:
        """What the bundle was trained on, with which settings, and how well it did on held-out data."""
        return self.head["card"]

    @cached_property
    def weights_hash(self) -> str:
        """Digest of all that samples depend on: weights, arguments, vocabulary and text encoder."""
        digest = blake2b(digest_size=16)
        read = [self.head["vocabulary"], self.head["models"], *filter(None, [self.text_encoder])]
        digest.update(json.dumps(read, sort_keys=True).encode())
        for name in sorted(self.head["models"]):
            digest.update(blake2b(self._read(name), digest_size=16).digest())
        return digest.hexdigest()

    def tokenizer(self) -> WindowTokenizer:
        """Return the tokenizer, in float32, in evaluation mode and without gradients, like all models here."""
        return self._load("tokenizer")

    def token_model(self) -> TokenTransformer:
        """Return the token transformer."""
        return self._load("token_model")

    @property
    def text_encoder(self) -> dict[str, str] | None:
        """Name and digest of the pretrained encoder of the token model's texts; None if the vocabulary is used."""
        return self.head.get("text_encoder")

    def backend(self, reader: CaptionReader | None = None) -> LocalBackend:
        """Return tokenizer and token transformer as a backend for edits.

        Args:
            reader: Encodes the texts if the bundle names a ``text_encoder``; None for the bundle's vocabulary.
        """
        return LocalBackend(self.tokenizer(), self.token_model(), reader or self.vocabulary)

    def dual_encoder(self) -> DualEncoder:
        """Return the dual encoder."""
        return self._load("dual_encoder")

    def _load(self, name: str) -> nn.Module:
        if name not in self.head["models"]:
            msg = f"Bundle {str(self.path)!r} has no {name}. Fit the bundle again."
            raise ValueError(msg)
        with torch.device("meta"):  # draws no random weights, and takes no memory
            model = _CLASSES[name](**self.head["models"][name])
        wanted = model.state_dict()
        most = _MOST_HEADER + _MOST_BYTES * sum(value.numel() for value in wanted.values())
        try:
            state = load(self._read(name, most=most))
        except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
            raise self._misfit(name, f"it is no safetensors file ({error})") from error
        misshapen = [
            (key, value.shape, wanted[key].shape)
            for key, value in state.items()
            if key in wanted and value.shape != wanted[key].shape
        ]
        misfit = describe_misfit(
            missing=set(wanted) - set(state), unexpected=set(state) - set(wanted), misshapen=misshapen
        )
        if misfit:
            raise self._misfit(name, misfit)
        odd = sorted(key for key, value in state.items() if value.dtype not in _DTYPES or not value.isfinite().all())
        if odd:
            raise self._misfit(name, f"{odd[0]!r} holds values that are no finite numbers of 16 to 64 bits")
        model.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
        return model.eval().requires_grad_(False)

    def _misfit(self, name: str, reason: str) -> ValueError:
        file = str(self.path / f"{name}.safetensors")
        return ValueError(
            f"{file!r} does not fit its bundle: it must hold the weights of `models.{name}` and no others; {reason}. "
            "Fit the bundle again, or fetch it again."
        )

    def _read(self, name: str, *, most: int | None = None) -> bytes:
        path = self.path / f"{name}.safetensors"
        try:
            size = path.stat().st_size
            if most is not None and size > most:
                raise self._misfit(name, f"it has {size} bytes, the model takes at most {most}")
            return path.read_bytes()
        except OSError as error:
            msg = f"{str(path)!r} cannot be read ({error.strerror}). Fit the bundle again."
            raise ValueError(msg) from error


def load_bundle(path: Path | str | None = None) -> Bundle:
    """Return the bundle in a folder; None gives the one that comes with the package."""
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
        models: Models by name (``tokenizer``, ``token_model``, ``dual_encoder``), each with its arguments in
            ``config``.
        vocabulary: Vocabulary of the captions.
        card: What the bundle was trained on and how; plain data for JSON.
        text_encoder: ``name`` and ``weights_hash`` of the pretrained encoder of the token model's texts, if it has one.
        half: Whether to write the weights in float16 rather than float32.
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

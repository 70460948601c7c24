"""The encoders that a score can use, by what a user writes in a config."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from anomalib_synth.models.bundle import Bundle, load_bundle
from anomalib_synth.models.dual_encoder import IMAGE_SIZE
from anomalib_synth.quality import ImageTextEncoder, OpenClipDualEncoder
from anomalib_synth.quality.open_clip import split_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anomalib_synth.models.captions import CaptionVocabulary
    from anomalib_synth.models.dual_encoder import DualEncoder
    from anomalib_synth.models.editing import LocalBackend

OPEN_CLIP = "open_clip:"


class LocalDualEncoder:
    """The small dual encoder of a bundle; see :class:`anomalib_synth.quality.ImageTextEncoder`.

    Words it was not trained on are read as "unknown"; each is reported once.

    Args:
        encoder: The encoder; put into evaluation mode.
        vocabulary: Of the captions it was trained on.

    Example:
        >>> from anomalib_synth.models.captions import CaptionVocabulary
        >>> from anomalib_synth.models.dual_encoder import DualEncoder
        >>> vocabulary = CaptionVocabulary(["a", "scratch"])
        >>> encoder = LocalDualEncoder(DualEncoder(vocabulary_size=len(vocabulary)), vocabulary)
        >>> encoder.encode_captions(["a scratch"]).shape
        torch.Size([1, 64])
    """

    image_size = IMAGE_SIZE

    def __init__(self, encoder: DualEncoder, vocabulary: CaptionVocabulary) -> None:
        self.encoder = encoder.eval()
        self.vocabulary = vocabulary
        self._reported: set[str] = set()

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Return the unit vectors of images in [0, 1]."""
        return self.encoder.to(images.device).encode_image(images)

    def encode_captions(self, captions: Sequence[str]) -> torch.Tensor:
        """Return the unit vectors of captions."""
        self._report_unknown(captions)
        tokens = self.vocabulary.encode(captions, length=self.encoder.caption_length)
        return self.encoder.encode_text(tokens.to(self.encoder.log_scale.device))

    def find_unknown(self, caption: str) -> list[str]:
        """Return the words of a caption that it was not trained on."""
        return self.vocabulary.find_unknown(caption)

    def _report_unknown(self, captions: Sequence[str]) -> None:
        unknown = {word for caption in captions for word in self.vocabulary.find_unknown(caption)} - self._reported
        if unknown:
            self._reported |= unknown
            words = ", ".join(sorted(unknown))
            msg = (
                f"The encoder that scores samples does not know these words of captions: {words}. They count for "
                "nothing in the score. `anomalib-synth fit` trains an encoder on the captions of your own defects; "
                "`open_clip:MODEL:WEIGHTS` knows more words."
            )
            warnings.warn(msg, stacklevel=2)


class TextTower:
    """Texts as vectors of open_clip's text tower: they may use any words, not those of the captions alone.

    Args:
        name: ``open_clip:MODEL:PRETRAINED``; see :func:`load_encoder`.

    Raises:
        ValueError: If it names no model of open_clip.
    """

    def __init__(self, name: str) -> None:
        if not name.startswith(OPEN_CLIP):
            msg = f"`text_encoder` must be `open_clip:MODEL:PRETRAINED`, or None for the captions' words, got {name!r}."
            raise ValueError(msg)
        self.name = name
        self.encoder = OpenClipDualEncoder(*split_name(name.removeprefix(OPEN_CLIP)))
        self._known: dict[str, torch.Tensor] = {}

    @property
    def channels(self) -> int:
        """Length E of a vector."""
        return self._encode("a").shape[0]

    def encode(self, captions: Sequence[str], *, length: int) -> torch.Tensor:
        """Return unit vectors (B, E); zeros for the empty caption. The tower cuts long ones at a length of its own."""
        del length
        return torch.stack([self._encode(text) if text else torch.zeros(self.channels) for text in captions])

    def find_unknown(self, caption: str) -> list[str]:
        """Return the words it cannot read: none, as its tokens spell any."""
        del caption
        return []

    def _encode(self, text: str) -> torch.Tensor:
        if text not in self._known:  # one by one, so that no bit depends on the other texts
            with torch.no_grad():
                self._known[text] = self.encoder.encode_captions([text])[0].cpu()
        return self._known[text]


def load_backend(bundle: Bundle, *, text_encoder: str | None = None) -> LocalBackend:
    """Return the models of a bundle, with the pretrained encoder that reads their texts if it was fitted with one.

    A bundle may come from somebody else, so what it names is loaded without a word only where it lies on this machine;
    what would be fetched has to be asked for.

    Args:
        bundle: The bundle.
        text_encoder: The encoder's name, as the user gives it; None takes the bundle's word for files of this machine.

    Raises:
        ValueError: If the bundle names another encoder than the user, or one that is not on this machine; if its
            weights are others than those it was fitted with.
    """
    named = None if bundle.text_encoder is None else bundle.text_encoder["name"]
    if text_encoder is not None and text_encoder != named:
        msg = (
            f"`text_encoder` must be the encoder that bundle {str(bundle.path)!r} was fitted with, "
            f"{named or 'none: it reads words'}, got {text_encoder!r}. "
            f"{'Set it to that name.' if named else 'Leave it out.'}"
        )
        raise ValueError(msg)
    if bundle.text_encoder is None:
        return bundle.backend()
    tower = TextTower(bundle.text_encoder["name"])
    if text_encoder is None and not tower.encoder.is_local:
        msg = (
            f"Bundle {str(bundle.path)!r} must not name a `text_encoder` that is not on this machine, got {named!r}: a "
            "file has nothing fetched by itself. If that is what you want, ask for it: "
            f"`AutoregressiveGenerator(text_encoder={named!r})`, or `text_encoder:` beside `bundle:` in YAML."
        )
        raise ValueError(msg)
    try:
        found = tower.encoder.weights_hash
    except OSError as error:
        if text_encoder is not None:
            raise
        msg = f"Bundle {str(bundle.path)!r} must name a `text_encoder` that can be loaded, got {named!r}: {error}"
        raise ValueError(msg) from error
    if found != bundle.text_encoder["weights_hash"]:
        msg = (
            f"The weights of {tower.name} are others than those that bundle {str(bundle.path)!r} was fitted with. Put "
            "the old ones back, or fit the bundle again."
        )
        raise ValueError(msg)
    return bundle.backend(tower)


def find_unknown(encoder: ImageTextEncoder, caption: str) -> list[str]:
    """Return the words of a caption that an encoder was not trained on; none where it reads any word."""
    return encoder.find_unknown(caption) if isinstance(encoder, LocalDualEncoder) else []


def load_encoder(name: Path | str | None) -> tuple[ImageTextEncoder, str]:
    """Return an encoder and the digest of its weights.

    Args:
        name: Folder of a bundle; None is the one that comes with the package; ``open_clip:MODEL:PRETRAINED`` a model of
            open_clip, see :class:`anomalib_synth.quality.OpenClipDualEncoder`.

    Raises:
        ValueError: If the bundle is missing or damaged, or the name is incomplete.
        ImportError: If open_clip is asked for and not installed.
        OSError: If open_clip has not the weights.
    """
    if name is not None and str(name).startswith(OPEN_CLIP):
        encoder = OpenClipDualEncoder(*split_name(str(name).removeprefix(OPEN_CLIP)))
        return encoder, encoder.weights_hash
    bundle = load_bundle(name)
    return LocalDualEncoder(bundle.dual_encoder(), bundle.vocabulary), bundle.weights_hash

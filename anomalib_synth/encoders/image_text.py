"""Image-text encoders by name, as a score uses them: the dual encoder of a bundle, or a model of open_clip."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Protocol

import torch

from anomalib_synth.encoders.open_clip import OPEN_CLIP, OpenClipDualEncoder, split_name
from anomalib_synth.models.bundle import load_bundle
from anomalib_synth.models.dual_encoder import IMAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anomalib_synth.models.captions import CaptionVocabulary
    from anomalib_synth.models.dual_encoder import DualEncoder


class ImageTextEncoder(Protocol):
    """Encodes images and captions into one space."""

    @property
    def image_size(self) -> int:
        """Side S of the images it takes."""

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Return the unit vectors (B, D) of images (B, 3, S, S) in [0, 1], S = ``image_size``, on their device."""

    def encode_captions(self, captions: Sequence[str]) -> torch.Tensor:
        """Return the unit vectors (B, D) of B captions."""


class LocalDualEncoder:
    """The small dual encoder of a bundle; an :class:`ImageTextEncoder`.

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


def find_unknown(encoder: ImageTextEncoder, caption: str) -> list[str]:
    """Return the words of a caption that an encoder was not trained on; none where it reads any word."""
    return encoder.find_unknown(caption) if isinstance(encoder, LocalDualEncoder) else []


def load_encoder(name: Path | str | None) -> tuple[ImageTextEncoder, str]:
    """Return an encoder and the digest of its weights.

    Args:
        name: Folder of a bundle; None is the one that comes with the package; ``open_clip:MODEL:PRETRAINED`` a model of
            open_clip, see :class:`~anomalib_synth.encoders.open_clip.OpenClipDualEncoder`.

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

"""Text encoders by name, as a token model uses them: the text tower of a model of open_clip."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from anomalib_synth.encoders.open_clip import OPEN_CLIP, OpenClipDualEncoder, split_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.models.bundle import Bundle
    from anomalib_synth.models.editing import LocalBackend


class OpenClipTextEncoder:
    """Texts as vectors of open_clip's text tower: they may use any words, not those of the captions alone.

    Args:
        name: ``open_clip:MODEL:PRETRAINED``; see :func:`~anomalib_synth.encoders.image_text.load_encoder`.

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
    tower = OpenClipTextEncoder(bundle.text_encoder["name"])
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

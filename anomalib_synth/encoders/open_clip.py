"""Pretrained image-text encoders of the library open_clip."""

from __future__ import annotations

from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from anomalib_synth.encoders.open_clip_files import (
    LOCAL_DIR,
    REMEDY,
    check_folder,
    check_shapes,
    find_weights,
    names_local_files,
)
from anomalib_synth.installation import install_extras
from anomalib_synth.models.completeness import shorten_state_error

if TYPE_CHECKING:
    from collections.abc import Sequence

OPEN_CLIP = "open_clip:"  # before the name of a model and its weights, where a user names an encoder
_WITH_OWN_WEIGHTS = ("hf-hub:", LOCAL_DIR)
_BLOCK = 2**20


class OpenClipDualEncoder:
    """An image-text encoder of open_clip; loaded on first use.

    The model's own input size, mean and standard deviation are used, once: images come in [0, 1].

    Args:
        model_name: A name of open_clip, such as ``ViT-B-32``, or ``local-dir:FOLDER`` or ``hf-hub:ORG/NAME``, which
            bring their weights.
        pretrained: Path of a weight file, or a tag of open_clip (``openai``, ``laion2b_s34b_b79k``), whose weights come
            from the hub or its cache. None with ``local-dir:`` and ``hf-hub:``.

    Raises:
        ValueError: If weights are missing, or one too many are named; on first use, if they are not those of the whole
            model, or the configuration in a folder names a hub or code.
        ImportError: On first use, if open_clip is not installed.
        OSError: On first use, if the weights are not found.
    """

    def __init__(self, model_name: str, pretrained: str | Path | None = None) -> None:
        brings_weights = model_name.startswith(_WITH_OWN_WEIGHTS)
        if brings_weights and pretrained:
            msg = f"`pretrained` must be None, as {model_name!r} brings its weights, got {str(pretrained)!r}."
            raise ValueError(msg)
        if not brings_weights and not pretrained:
            msg = f"`pretrained` must name weights for {model_name!r}: the path of a file, or a tag of open_clip."
            raise ValueError(msg)
        self.model_name = model_name
        self.pretrained = None if pretrained is None else str(pretrained)

    @cached_property
    def model(self) -> torch.nn.Module:
        """The model, in float32 and evaluation mode."""
        open_clip = _import()
        folder = None
        if self.model_name.startswith(LOCAL_DIR):
            folder = Path(self.model_name.removeprefix(LOCAL_DIR))
            if folder.is_dir():
                check_folder(folder)
        weights = self.model_name if self.pretrained is None else f"{self.pretrained} of {self.model_name}"
        try:
            with torch.random.fork_rng(devices=[]):  # weights are initialised before they are loaded
                model = open_clip.create_model(
                    self.model_name, pretrained=self.pretrained, precision="fp32", require_pretrained=True
                )
        except Exception as error:
            if "loading state_dict" in str(error):
                msg = f"{weights} must hold the weights of its whole model: {shorten_state_error(error)} {REMEDY}"
                raise ValueError(msg) from error
            msg = (
                f"open_clip cannot load {weights} ({error}). Without network, name a weight file that is there "
                "(`open_clip:ViT-B-32:/path/to/open_clip_model.safetensors`), or fill the hub's cache on a machine "
                "with network and copy it. The bundle that comes with the package needs no download: `encoder: null`."
            )
            raise OSError(msg) from error
        file = find_weights(folder) if folder is not None else Path(self.pretrained or "")
        if file is not None and file.is_file():
            check_shapes(model, file)
        return model.eval().requires_grad_(False)

    @property
    def is_local(self) -> bool:
        """Whether it needs files of this machine alone."""
        return names_local_files(f"{self.model_name}:{self.pretrained or ''}", _import())

    @cached_property
    def image_size(self) -> int:
        """Side of the model's input in pixels."""
        size = self.model.visual.image_size
        sides = {size} if isinstance(size, int) else set(size)
        if len(sides) != 1:
            msg = f"{self.model_name} takes images of {size} pixels; only square inputs are supported. Choose another."
            raise ValueError(msg)
        return sides.pop()

    @cached_property
    def weights_hash(self) -> str:
        """Digest of the weight file, or of the loaded weights where a tag names them."""
        digest = blake2b(digest_size=16)
        digest.update(self.model_name.encode())
        if self.pretrained is not None and Path(self.pretrained).is_file():
            with Path(self.pretrained).open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        else:
            for name, value in sorted(self.model.state_dict().items()):
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Return the unit vectors of images in [0, 1]; see :class:`anomalib_synth.quality.ImageTextEncoder`."""
        visual = self.model.to(images.device).visual
        mean, std = (images.new_tensor(value).view(1, 3, 1, 1) for value in (visual.image_mean, visual.image_std))
        return F.normalize(self.model.encode_image((images - mean) / std).float(), dim=1)

    def encode_captions(self, captions: Sequence[str]) -> torch.Tensor:
        """Return the unit vectors of captions."""
        device = next(self.model.parameters()).device
        return F.normalize(self.model.encode_text(self._tokenize(list(captions)).to(device)).float(), dim=1)

    @cached_property
    def _tokenize(self):
        try:
            return _import().get_tokenizer(self.model_name)
        except Exception as error:
            msg = (
                f"open_clip cannot load the tokenizer of {self.model_name} ({error}). Without network, choose a model "
                "with CLIP's own tokenizer, such as ViT-B-32."
            )
            raise OSError(msg) from error


def split_name(name: str) -> tuple[str, str | None]:
    """Split ``MODEL:PRETRAINED`` at the first colon; names that bring their weights stay whole.

    Example:
        >>> split_name("ViT-B-32:openai"), split_name("local-dir:/models/clip")
        (('ViT-B-32', 'openai'), ('local-dir:/models/clip', None))
    """
    if name.startswith(_WITH_OWN_WEIGHTS):
        return name, None
    model, _, pretrained = name.partition(":")
    return model, pretrained or None


def _import():
    try:
        import open_clip
    except ImportError as error:
        msg = (
            f"This encoder needs open_clip, which is not installed. Run `{install_extras('clip')}`, or use the "
            "encoder that comes with the package: `encoder: null`."
        )
        raise ImportError(msg) from error
    return open_clip

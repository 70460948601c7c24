"""Janus (arXiv 2501.17811, from transformers) for local edits: a pretrained text-conditional next-token model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from anomalib_synth.installation import install_extras
from anomalib_synth.models.config_files import read_json_object
from anomalib_synth.models.pretrained import check_files, load_network

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Self

_REMEDY = "Fetch it again: `hf download deepseek-community/Janus-Pro-1B --local-dir FOLDER`."
_TEMPLATE = "A close-up photo of a surface with {}."
_logger = logging.getLogger(__name__)


class JanusCheckpoint:
    """A folder with a Janus model in the format of transformers; the model is loaded when it is requested.

    It holds ``config.json``, ``*.safetensors`` and the files of the processor, as ``save_pretrained`` of transformers
    writes them. Nothing is downloaded: on a machine with network, ``hf download deepseek-community/Janus-Pro-1B
    --local-dir FOLDER`` fetches the files.

    Args:
        path: The folder.

    Raises:
        ValueError: If the folder holds no Janus model, or, when it is used, no safetensors.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not is_janus(self.path):
            msg = f"{str(path)!r} is no Janus model of transformers: no config.json there has `model_type` janus."
            raise ValueError(msg)

    @cached_property
    def weights_hash(self) -> str:
        """Digest of all that samples depend on: the weights, and the files of model and processor."""
        files = sorted(file for file in self.path.iterdir() if file.suffix in {".safetensors", ".json", ".jinja"})
        weights = [file for file in files if file.suffix == ".safetensors"]
        if not weights:
            msg = f"{str(self.path)!r} holds no *.safetensors; other formats of weights are not read."
            raise ValueError(msg)
        _logger.info("Reading %.1f GiB of weights for their digest.", sum(f.stat().st_size for f in weights) / 2**30)
        digest = blake2b(digest_size=16)
        for file in files:
            with file.open("rb") as stream:
                digest.update(file.name.encode() + file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    def backend(self) -> JanusBackend:
        """Load the models from the folder and return them.

        Raises:
            ImportError: If transformers is not installed.
            ValueError: If files are missing or do not fit.
        """
        transformers = _import()
        check_files(self.path, what="Janus model", remedy=_REMEDY)
        with torch.random.fork_rng(devices=[]):
            kind = transformers.JanusForConditionalGeneration
            model = load_network("model", self.path, kind, "auto", remedy=_REMEDY)
        try:
            processor = transformers.JanusProcessor.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # the libraries raise many kinds of errors for files that do not fit
            msg = f"transformers cannot load the processor of the Janus model in {str(self.path)!r}: {error} {_REMEDY}"
            raise ValueError(msg) from error
        return JanusBackend(model.eval().requires_grad_(False), processor)


class JanusBackend:
    """Janus, a next-token image model, as a :class:`~anomalib_synth.models.editing.TokenBackend`.

    A window is resized to the model's resolution (384 pixels for Janus-Pro) and encoded in one scale of tokens (24 x
    24). The tokens in the mask are drawn one by one in raster order. Each is given the text and all tokens before it:
    drawn ones inside the mask, the source's outside. So, unlike the local model, Janus sees what is above and to the
    left of a token, but not what is below.

    Args:
        model: ``JanusForConditionalGeneration``.
        processor: ``JanusProcessor``.
    """

    num_scales = 1
    frozen_scales = 0

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        self.vq = model.model.vqmodel
        self.grid = self.vq.quantize.quant_state_dims[0]
        self.resolution = self.grid * 2 ** (len(self.vq.config.channel_multiplier) - 1)

    def to(self, device: torch.device) -> Self:
        """Move the models."""
        self.model.to(device)
        return self

    def find_unknown(self, text: str) -> list[str]:
        """Return the words that the model cannot read: none, since its tokens can spell any word."""
        del text
        return []

    def hide(self, image: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Return the window unchanged: a token only sees earlier ones, and in the mask those are drawn already."""
        del hidden
        return image

    def encode(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return latents and tokens: (1, 3, S, S) -> (1, C, g, g), [(1, g, g)]."""
        size = (self.resolution, self.resolution)
        image = F.interpolate(image, size, mode="bicubic", antialias=True).clamp(0, 1) * 2 - 1
        z = self.vq.quant_conv(self.vq.encoder(image.to(self.model.dtype))).float()
        return z, [self.quantize(z, 0)]

    def quantize(self, residual: torch.Tensor, scale: int) -> torch.Tensor:
        """Return the nearest tokens: (1, C, g, g) -> (1, g, g)."""
        del scale
        # the codebook is on the unit sphere, which the quantiser of transformers ignores when it encodes
        near = torch.einsum("bchw,vc->bvhw", F.normalize(residual, dim=1), F.normalize(self._codebook, dim=1))
        return near.argmax(1)

    def groups(self, mask: torch.Tensor, scale: int) -> list[torch.Tensor]:
        """Return the tokens that touch a mask (1, 1, S, S), one by one."""
        del scale
        touched = F.adaptive_max_pool2d(mask.float(), self.grid)[:, 0] > 0
        single = torch.zeros_like(touched)
        return [single.index_put(tuple(at), torch.ones_like(touched[0, 0, 0])) for at in touched.nonzero()]

    def embed(self, tokens: torch.Tensor, scale: int) -> torch.Tensor:
        """Return the latents of tokens: (1, g, g) -> (1, C, g, g)."""
        del scale
        return F.normalize(self._codebook[tokens], dim=-1).permute(0, 3, 1, 2)

    def begin(self, z: torch.Tensor, mask: torch.Tensor, texts: Sequence[str]) -> _JanusEdit:
        """Encode the texts; the first is empty: its words become padding, as in the model's training for guidance."""
        del mask
        asked = [self._instruct(text) for text in texts[1:]]
        read = self.processor(
            text=asked, generation_mode="image", padding=True, padding_side="left", return_tensors="pt"
        ).to(z.device)
        tokenizer = self.processor.tokenizer
        kept = torch.tensor([tokenizer.bos_token_id, tokenizer.boi_token_id], device=z.device)
        first = read["input_ids"][:1]
        null = first.where(torch.isin(first, kept), tokenizer.pad_token_id)
        mask = read["attention_mask"]
        return _JanusEdit(
            pending=self.model.get_input_embeddings()(torch.cat([null, read["input_ids"]])),
            attention=torch.cat([mask[:1], mask]),
            cache=_import().DynamicCache(config=self.model.config.text_config),
        )

    def logits(
        self, begun: _JanusEdit, f: torch.Tensor, drawn: torch.Tensor, gate: torch.Tensor, scale: int
    ) -> torch.Tensor:
        """Return the logits of the gated token for each text: (T, 1, V)."""
        del f, scale
        position = int(gate.flatten().nonzero()[0])
        before = drawn.flatten()[begun.fed : position].expand(len(begun.attention), -1)
        begun.fed = position
        seen = self.model.prepare_embeddings_for_image_generation(before).to(begun.pending.dtype)
        new = torch.cat([begun.pending, seen], 1)
        begun.pending = new[:, :0]
        known = begun.cache.get_seq_length()
        begun.attention = F.pad(begun.attention, (0, known + new.shape[1] - begun.attention.shape[1]), value=1)
        places = (begun.attention.cumsum(1) - 1).clamp_min(0)
        states = self.model.model.language_model(
            inputs_embeds=new,
            attention_mask=begun.attention,
            position_ids=places[:, known:],
            past_key_values=begun.cache,
            use_cache=True,
        ).last_hidden_state
        return self.model.model.generation_head(states[:, -1:])

    def decode(self, f: torch.Tensor) -> torch.Tensor:
        """Decode latents to windows at the model's resolution."""
        return self.vq.decoder(self.vq.post_quant_conv(f.to(self.model.dtype))).float() * 0.5 + 0.5

    @property
    def _codebook(self) -> torch.Tensor:
        return self.vq.quantize.embedding.weight.float()

    def _instruct(self, text: str) -> str:
        """Return the text in the model's prompt format."""
        text = _TEMPLATE.format(text)
        if not self.processor.chat_template:
            return text
        message = {"role": "user", "content": [{"type": "text", "text": text}]}
        return self.processor.apply_chat_template([message], add_generation_prompt=True)


@dataclass(kw_only=True)
class _JanusEdit:
    """State of an edit: embeddings not yet read, the attention mask, the key-value cache, and the tokens read."""

    pending: torch.Tensor
    attention: torch.Tensor
    cache: Any
    fed: int = 0


def is_janus(path: Path) -> bool:
    """Return whether a folder holds a Janus model of transformers."""
    try:
        config = read_json_object(path / "config.json", what="Janus model", remedy=_REMEDY)
    except ValueError:
        return False
    return config.get("model_type") == "janus"


def _import() -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        msg = f"A Janus model needs transformers: `{install_extras('janus')}`."
        raise ImportError(msg) from error
    return transformers

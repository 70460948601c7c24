"""More defects of a real defect's kind: pasted copies, and variations drawn from its tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from anomalib_synth.generators.autoregressive import AutoregressiveGenerator
from anomalib_synth.generators.local_edits import draw_into
from anomalib_synth.generators.proposal import Proposal
from anomalib_synth.generators.proposing import ProposingGenerator
from anomalib_synth.generators.real_defect import Blend, RealDefectGenerator
from anomalib_synth.generators.seeding import RandomStream, hash64
from anomalib_synth.generators.validation import check_range
from anomalib_synth.generators.windows import find_inside
from anomalib_synth.models.editing import Sampling, Template

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from anomalib_synth.generators.checks import SampleChecks
    from anomalib_synth.generators.condition import Condition
    from anomalib_synth.images import WhitePoint

_PACKAGED = "packaged"


class _Pasted(RealDefectGenerator):
    """Pastes the donors."""

    marks_argument = "marks"


class LookAlikeGenerator(ProposingGenerator):
    """Given real defects, draws more of their kind on other parts.

    Every defect is pasted first, as :class:`RealDefectGenerator` does it. With ``weights``, a share of the pasted
    defects is then drawn anew. The normal window x, and the same window t with the defect pasted, are written in tokens
    at several scales. Inside the defect's mask the coarse tokens of t are kept, and the finer ones are sampled scale by
    scale, given x around the mask, the kept tokens, and the type of the defect as the text. At scale k of K the share
    ``s_k = clip(v (K - k0) - (K - 1 - k), 0, 1)`` of the tokens is sampled, where v is the variation and k0 the first
    scale that the model draws. The finest scales are thus sampled first: a small v changes grain and edges, a larger
    one the material of the defect. At v = 1 only its outline and its type are kept; at v = 0 it is the pasted defect,
    encoded and decoded. For the equations see :func:`anomalib_synth.models.editing.edit_window`.

    The method is ours. It follows the edit ARAS of QARAD (arXiv 2508.03539), which starts from the tokens of a normal
    and a text. Ours starts from the tokens of a real defect, so that the result is of its kind without a description.

    A defect wider than 240 pixels is drawn in pieces, one after the other. Samples are drawn one by one on one thread,
    so that no bit depends on the batch. Take the images of the defects out of the test set: the samples show them.

    Args:
        defects: Images with defects, or a folder of them, as for :class:`RealDefectGenerator`; one image is enough.
        marks: Where the defects are outlined, as for ``masks`` there; None looks beside the images.
        weights: Folder of a bundle made by ``anomalib-synth fit``, best with ``--defects``, so that it knows their
            types as words; or of a Janus model. ``"packaged"`` is the small general bundle that comes with the package.
            None only pastes.
        text_encoder: See :class:`AutoregressiveGenerator`.
        edited: Share of the samples that are drawn anew if there are ``weights``, in [0, 1].
        variation: Smallest and largest variation v, 0 <= min <= max <= 1.
        blend: See :class:`RealDefectGenerator`, also for the next four arguments.
        strength: Smallest and largest strength, 0 < min <= max <= 1. 1 is the defect as it was.
        scale: Smallest and largest factor of size, 0 < min <= max <= 4. 1 is the size it had.
        turn: Turn by a random multiple of 90 degrees.
        mirror: Mirror every other defect.
        checks: Limits a sample must keep.
        foreground: ``"auto"``, the path of a mask image, or None for the whole image.
        max_attempts: Draws per sample before it is given back unchanged.
        seed: Base seed, used when a call names no seeds.
        white_point: White point of the defects' images if they have more than 8 bits, such as 4095 for 12 bits. Give
            that of the normals. None finds it in the images.

    Raises:
        ValueError: If an argument is out of its range; on first use, if a defect or the bundle cannot be used.

    Example:
        >>> generator = LookAlikeGenerator(["missed/0017.png"], "missed/masks", variation=(0.4, 0.8))
        >>> generator.config["class_path"]
        'anomalib_synth.generators.LookAlikeGenerator'
    """

    later_arguments: ClassVar[frozenset[str]] = frozenset({"white_point"})

    def __init__(
        self,
        defects: Path | str | Sequence[Path | str],
        marks: Path | str | None = None,
        *,
        weights: Path | str | None = None,
        text_encoder: str | None = None,
        edited: float = 0.5,
        variation: tuple[float, float] = (0.2, 0.6),
        blend: Blend = "poisson",
        strength: tuple[float, float] = (0.7, 1.0),
        scale: tuple[float, float] = (0.8, 1.25),
        turn: bool = True,
        mirror: bool = True,
        checks: SampleChecks | None = None,
        foreground: str | Path | None = "auto",
        max_attempts: int = 4,
        seed: int = 0,
        white_point: float | None = None,
    ) -> None:
        super().__init__(checks=checks, foreground=foreground, max_attempts=max_attempts, seed=seed)
        if not 0 <= edited <= 1:
            msg = f"`edited` must be in [0, 1], got {edited}. 0 pastes only, 1 draws every sample anew."
            raise ValueError(msg)
        if weights is None and text_encoder is not None:
            msg = f"`text_encoder` needs `weights`, whose texts it encodes, got {text_encoder!r} without `weights`."
            raise ValueError(msg)
        self.defects, self.marks, self.weights, self.text_encoder = defects, marks, weights, text_encoder
        self.edited = float(edited)
        self.variation = check_range("variation", variation, from_zero=True)
        self.pasted: RealDefectGenerator = _Pasted(
            defects, marks, blend=blend, strength=strength, scale=scale, turn=turn, mirror=mirror,
            foreground=foreground, white_point=white_point,
        )  # fmt: skip
        self.white_point = white_point
        self.blend, self.strength, self.scale = blend, self.pasted.strength, self.pasted.scale
        self.turn, self.mirror = turn, mirror
        bundle = None if str(weights) == _PACKAGED else weights
        self.editor = None if weights is None else AutoregressiveGenerator(bundle=bundle, text_encoder=text_encoder)

    @property
    def files(self) -> list[Path]:
        """The files that samples depend on besides the images: a mask of the part, the defects and their marks."""
        return self.pasted.files

    @property
    def defect_images(self) -> list[Path]:
        """The images of the defects."""
        return self.pasted.defect_images

    @property
    def donor_white(self) -> WhitePoint:
        """White point with which the defects' images of more than 8 bits are read."""
        return self.pasted.donor_white

    @property
    def files_digest(self) -> str:
        """Digest of what the generator reads."""
        return self.pasted.files_digest

    @property
    def weights_hash(self) -> str:
        """Digest of the models' weights, ``""`` without models."""
        return "" if self.editor is None else self.editor.weights_hash

    def check(self) -> None:
        """Read every defect and open the models, so that errors show before any work.

        Raises:
            ValueError: If a defect or the bundle cannot be used.
        """
        self.pasted.make_params(self.seed)
        if self.editor is not None:
            _ = self.editor.backend

    def propose(
        self, images: torch.Tensor, rows: list[int], seeds: list[int], part: torch.Tensor | None, condition: Condition
    ) -> Iterator[Proposal]:
        """Propose one defect for each row; see :meth:`ProposingGenerator.propose`."""
        seed_of = dict(zip(rows, seeds, strict=True))
        for proposal in self.pasted.propose(images, rows, seeds, part, condition):
            if self.editor is None:
                yield proposal
                continue
            for n, row in enumerate(proposal.rows):
                one, draws = _take(proposal, n), RandomStream(hash64(seed_of[row], "look alike"))
                if draws.unit() < self.edited:
                    one = _edit(self.editor, images[row], one, draws.uniform(*self.variation), seed_of[row])
                yield one


def _edit(
    editor: AutoregressiveGenerator, image: torch.Tensor, pasted: Proposal, variation: float, seed: int
) -> Proposal:
    """Draw a pasted defect anew, piece by piece."""
    (prompt,) = pasted.captions
    editor.report_unknown(prompt)
    template = image.clone()
    template[:, *find_inside(pasted, 0, 0)] = pasted.target[0]
    target, leakage = draw_into(
        editor.backend,
        image,
        pasted,
        prompt,
        seed=seed,
        sampling=Sampling(),
        template=Template(image=template[None], variation=variation),
    )
    return replace(
        pasted,
        target=target,
        params=[pasted.params[0] | {"variation": variation, "leakage": leakage}],
        prompts=[prompt],
    )


def _take(proposal: Proposal, n: int) -> Proposal:
    """Return one row of a proposal."""
    rows = slice(n, n + 1)
    taken: dict[str, Any] = {name: None if value is None else value[rows] for name, value in vars(proposal).items()}
    return Proposal(**taken)

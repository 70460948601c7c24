"""Real defects, pasted onto other normals."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch

from anomalib_synth.functional.blending import clone_gradients
from anomalib_synth.functional.colour import find_grey, take_colour_out
from anomalib_synth.functional.masks import box_blur, exact_mean
from anomalib_synth.generators.donors import DefectFolder, Donor
from anomalib_synth.generators.families.family import Params, contrast_word, drop_colours
from anomalib_synth.generators.patches import Patch, find_corner, transform_donor
from anomalib_synth.generators.placement import window_side
from anomalib_synth.generators.proposal import Proposal
from anomalib_synth.generators.proposing import ProposingGenerator
from anomalib_synth.generators.seeding import RandomStream
from anomalib_synth.generators.validation import check_range

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anomalib_synth.generators.checks import SampleChecks
    from anomalib_synth.generators.condition import Condition
    from anomalib_synth.images import WhitePoint

Blend = Literal["poisson", "mixed", "feather"]
_SEEN = 0.05  # a pixel with more coverage counts as covered


class RealDefectGenerator(ProposingGenerator):
    """Pastes real defects onto normals: mirrored, turned, scaled and moved, in the tone of the new place.

    Each connected region of a mask is a defect; regions close to one another are one defect. A draw chooses a type
    evenly, then an image of that type evenly, then a defect of that image in proportion to its length, so that specks
    are rare. A pasted defect has the share of the image's height and width that it had in its own image, times
    ``scale``. A defect that a border of its image cuts off is pasted at a border again, if the part reaches that one; a
    defect that crosses its image from border to border crosses the new image too.

    Take the images of the defects out of the test set: a detector that trains on the samples has seen them.

    Args:
        defects: Images with defects, or a folder of them: either with a folder for each type (``<category>/test`` in
            MVTec layout; ``good`` is skipped), or with images of one type. The label of an annotation is the type;
            without one, the folder's name is. The type becomes the samples' ``family``. Read on first use.
        masks: Folder of masks, laid out like ``defects``: ``<name>_mask.png`` or ``<name>.png``, non-zero where the
            defect is; or of LabelMe or YOLO files with polygons; or one COCO or CVAT file. None looks beside the
            images, such as in ``ground_truth`` beside ``test`` (``docs/real_defects.md``). Boxes, lines and clicks are
            refused: they do not say where a defect ends.
        skip_unmarked: Leave out images whose defects are not outlined by pixels, instead of refusing them. If all are
            of that kind, they are still refused.
        blend: ``"poisson"`` clones the differences between neighbouring pixels, so that no edge and no change of tone
            is left around the defect. ``"mixed"`` clones only differences larger than the image's own, so that the
            image's texture shows through. ``"feather"`` pastes the pixels with a soft edge, shifted to the mean of the
            new surroundings.
        strength: Smallest and largest strength, 0 < min <= max <= 1. 1 is the defect as it was.
        scale: Smallest and largest factor of size, 0 < min <= max <= 4. 1 is the size it had.
        turn: Turn by a random multiple of 90 degrees. Set False if light or texture has a direction.
        mirror: Mirror every other defect.
        checks: Limits a sample must keep.
        foreground: ``"auto"``, the path of a mask image, or None for the whole image.
        max_attempts: Draws per sample before it is given back unchanged.
        seed: Base seed, used when a call names no seeds.
        white_point: White point of the defects' images if they have more than 8 bits, such as 4095 for 12 bits. Give
            that of the normals. None finds it in the images.

    Raises:
        ValueError: If an argument is out of its range; on first use, if a folder, an image or a mask is missing,
            unreadable, empty, or of another size than its image, or a defect is not outlined by pixels.

    Example:
        >>> generator = RealDefectGenerator("parts/bracket/test", blend="feather", scale=(1.0, 1.0))
        >>> generator.config["class_path"]
        'anomalib_synth.generators.RealDefectGenerator'
    """

    later_arguments: ClassVar[frozenset[str]] = frozenset({"white_point"})
    marks_argument = "masks"  # what errors call `masks`

    def __init__(
        self,
        defects: Path | str | Sequence[Path | str],
        masks: Path | str | None = None,
        *,
        skip_unmarked: bool = False,
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
        if blend not in get_args(Blend):
            msg = f"`blend` must be one of {', '.join(get_args(Blend))}, got {blend!r}."
            raise ValueError(msg)
        self.defects = defects
        self.masks = masks
        self.blend = blend
        self.strength = check_range("strength", strength)
        self.scale = check_range("scale", scale, largest=4.0)
        self.turn = turn
        self.mirror = mirror
        self.skip_unmarked = skip_unmarked
        self.white_point = white_point
        self._folder = DefectFolder(
            defects, masks, skip_unmarked=skip_unmarked, argument=self.marks_argument, white_point=white_point
        )

    @property
    def files(self) -> list[Path]:
        """The files that samples depend on besides the images: a mask of the part, the defects and their marks."""
        listed = dict.fromkeys(file for defect in self._folder.listed for file in defect.files)
        return [*super().files, *listed]

    @property
    def defect_images(self) -> list[Path]:
        """The images the defects are cut from."""
        return [defect.image for defect in self._folder.listed]

    @property
    def donor_white(self) -> WhitePoint:
        """White point with which the defects' images of more than 8 bits are read."""
        return self._folder.white

    @cached_property
    def files_digest(self) -> str:
        """Digest of the contents of :attr:`files` and of the types that folders or annotations give the defects."""
        digest = blake2b(super().files_digest.encode(), digest_size=16)
        for defect in self._folder.listed:
            digest.update(f"\x1f{defect.family}".encode())
        return digest.hexdigest()

    def make_params(self, seed: int) -> tuple[Donor, Params]:
        """Draw the donor and the parameters of one sample.

        Args:
            seed: Seed of the draw.

        Returns:
            The donor, and the parameters, all plain floats: the numbers ``image`` and ``region`` of the donor within
            its type, ``strength``, ``scale``, ``turns`` of 90 degrees, ``mirrored``, and the numbers that place it.
        """
        rng = RandomStream(seed)
        images = self._folder.donors[rng.choice(list(self._folder.donors))]
        image = rng.integer(0, len(images) - 1)
        regions = images[image]
        region = rng.choice(range(len(regions)), [donor.length for donor in regions])
        params = {
            "image": float(image),
            "region": float(region),
            "strength": rng.uniform(*self.strength),
            "scale": rng.uniform(*self.scale),
            "turns": float(rng.integer(0, 3)) * self.turn,
            "mirrored": float(rng.unit() < 0.5 and self.mirror),
            "place": rng.unit(),
            "place_y": rng.unit(),
            "place_x": rng.unit(),
        }
        return regions[region], params

    def propose(
        self, images: torch.Tensor, rows: list[int], seeds: list[int], part: torch.Tensor | None, condition: Condition
    ) -> Iterator[Proposal]:
        """Propose one defect for each row; see :meth:`ProposingGenerator.propose`."""
        height, width = images.shape[-2:]
        cells = None if part is None else part.cpu().numpy()[:, 0]
        grey = find_grey(images)
        groups: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
        for row, seed in zip(rows, seeds, strict=True):
            donor, params = self.make_params(seed)
            patch = transform_donor(donor, params, images.shape[-3:])
            if grey[row]:
                patch = Patch(
                    pixels=take_colour_out(patch.pixels[None], [True])[0], mask=patch.mask, reaches=patch.reaches
                )
            top, left = find_corner(patch, params, None if cells is None else cells[row], height, width)
            member = self._paste(images[row], patch, top, left)
            size = tuple(member["alpha"].shape[-2:])
            name = f"a real {donor.family.replace('_', ' ').lower()}"
            caption = f"{drop_colours(name) if grey[row] else name}, {contrast_word(params['strength'])}"
            groups[size].append(
                {**member, "rows": row, "families": donor.family, "captions": caption, "params": params}
            )
        for members in groups.values():
            columns: dict[str, Any] = {name: [member[name] for member in members] for name in members[0]}
            alpha = torch.stack(columns.pop("alpha"))
            strength = alpha.new_tensor([params["strength"] for params in columns["params"]]).view(-1, 1, 1, 1)
            target = torch.stack(columns.pop("target"))
            yield Proposal(target=target, alpha=alpha * strength, support=alpha > _SEEN, **columns)

    def _paste(self, image: torch.Tensor, patch: Patch, top: int, left: int) -> dict[str, Any]:
        """Paste a patch with its corner at (top, left); return corner, target and coverage of the window around it."""
        height, width = image.shape[-2:]
        h, w = patch.mask.shape[-2:]
        window = window_side(h, height), window_side(w, width)
        first = [
            min(max(corner - (side - length) // 2, 0), limit - side)
            for corner, side, length, limit in zip((top, left), window, (h, w), (height, width), strict=True)
        ]
        place = (slice(None), slice(top - first[0], top - first[0] + h), slice(left - first[1], left - first[1] + w))
        target = image[:, first[0] : first[0] + window[0], first[1] : first[1] + window[1]].clone()
        alpha = target.new_zeros(1, *window)
        source, pixels, inside = target[place][None], patch.pixels.to(image)[None], patch.mask.to(image.device)[None]
        reach = _reach(height, width)
        around = _grow(inside, reach)
        if self.blend == "feather":
            ring = (around & ~inside).float()
            shift = torch.stack([exact_mean((source - pixels)[:, c : c + 1], ring) for c in range(len(image))], dim=1)
            pasted, soft = pixels + shift.view(1, -1, 1, 1), max(1, reach // 2)
        else:
            pasted, soft = clone_gradients(source, pixels, around, keep_stronger=self.blend == "mixed"), 1
        target[place] = pasted[0]
        alpha[place] = torch.maximum(inside.float(), box_blur(_grow(inside, soft).float(), soft))[0]
        return {"top": first[0], "left": first[1], "target": target, "alpha": alpha}


def _reach(height: int, width: int) -> int:
    """Return how far around its mask a defect may change the surface, in pixels."""
    return max(1, min(height, width) // 64)


def _grow(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """Grow a (N, 1, h, w) bool mask by a square of 2 radius + 1 pixels."""
    return box_blur(mask.float(), radius) > 0

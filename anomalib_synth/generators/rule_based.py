"""Rule-based synthesis: every hand-made family of the field behind one generator."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from anomalib_synth.functional.layers import Window
from anomalib_synth.generators.base import AnomalyGenerator, Proposal, build_generator, crop, crop_grid
from anomalib_synth.generators.families import REGISTRY, Family, Frame
from anomalib_synth.generators.families.family import Params, drop_colours
from anomalib_synth.generators.seeding import Draws
from anomalib_synth.generators.textures import ProceduralTextures, TextureFolder, TextureSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from anomalib_synth.generators.checks import SampleChecks
    from anomalib_synth.generators.prepared import PreparedNormals

_WINDOW_SIDES = [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096]
_CHUNK_PIXELS = (2**16, 2**25)  # a CPU is fastest while a group's tensors stay in its cache, a GPU when they fill it


class RuleBasedGenerator(AnomalyGenerator):
    """Draws hand-made defects: the literature's augmentations and the defects a line engineer names.

    A family draws its parameters from the sample's own seed and renders them in a window just large enough, batched
    with the other samples whose windows have the same size. Strength scales the change of every pixel linearly, so
    visibility grows with it monotonically.

    Args:
        families: Names, or names with weights (need not sum to 1); None takes all, evenly.
        strength: Smallest and largest strength, 0 < min <= max <= 1. 1 is the family's full effect.
        size: Smallest and largest linear size of a defect as a share of the shorter side, 0 < min <= max <= 1.
        texture_dir: Folder with texture images (DTD or any) for the families that blend foreign textures; None
            renders procedural ones. Read on first use, never downloaded.
        checks: Limits a sample must keep.
        foreground: ``"auto"``, the path of a mask image, or None for the whole image.
        max_attempts: Draws per sample before it is given back unchanged.
        seed: Base seed, used when a call names no seeds.

    Raises:
        ValueError: If a family is unknown, a weight is not positive, all weights are 0, or a range is out of order.

    Example:
        >>> import torch
        >>> generator = RuleBasedGenerator(families=["scratch", "nsa"])
        >>> sample = generator(torch.rand(2, 3, 64, 64), seeds=[1, 2])
        >>> sample.mask.shape
        torch.Size([2, 1, 64, 64])
    """

    def __init__(
        self,
        families: Sequence[str] | Mapping[str, float] | None = None,
        *,
        strength: tuple[float, float] = (0.3, 1.0),
        size: tuple[float, float] = (0.04, 0.25),
        texture_dir: str | Path | None = None,
        checks: SampleChecks | None = None,
        foreground: str | Path | None = "auto",
        max_attempts: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(checks=checks, foreground=foreground, max_attempts=max_attempts, seed=seed)
        self.families = _check_families(families)
        self.strength = _check_range("strength", strength)
        self.size = _check_range("size", size)
        self.texture_dir = texture_dir
        self._textures: TextureSource = ProceduralTextures() if texture_dir is None else TextureFolder(texture_dir)
        self._donors: torch.Tensor | None = None

    @staticmethod
    def available_families() -> list[str]:
        """Return the names of all families, the literature's first."""
        return list(REGISTRY)

    @property
    def init_args(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return {
            "families": dict(self.families),
            "strength": list(self.strength),
            "size": list(self.size),
            "texture_dir": None if self.texture_dir is None else str(self.texture_dir),
            **self.common_init_args(),
        }

    @property
    def files(self) -> list[Path]:
        """The files that samples depend on beside the images: a mask of the part, textures."""
        textures = self._textures.files if isinstance(self._textures, TextureFolder) else []
        return [*super().files, *textures]

    def only(self, family: str) -> RuleBasedGenerator:
        """Return a generator like this one, and prepared like it, that draws one family alone."""
        twin = build_generator({**self.config, "init_args": {**self.init_args, "families": {family: 1.0}}})
        if self.prepared is not None:
            twin.use_prepared(self.prepared)
        return twin

    def use_prepared(self, prepared: PreparedNormals) -> None:
        """Take normals that were measured before; see :meth:`AnomalyGenerator.use_prepared`."""
        super().use_prepared(prepared)
        self._donors = None

    def make_params(self, seed: int, height: int, width: int) -> tuple[Family, Params]:
        """Draw the family and the parameters of one sample.

        Args:
            seed: Seed of the draw.
            height: Height of the image in pixels.
            width: Width of the image in pixels.

        Returns:
            The family, and its parameters with ``strength`` and the numbers that place the defect, all plain floats.
        """
        rng = Draws(seed)
        family = REGISTRY[rng.choice(list(self.families), list(self.families.values()))]
        params = {
            "strength": rng.uniform(*self.strength),
            "place": rng.unit(),
            "place_y": rng.unit(),
            "place_x": rng.unit(),
            "donor": rng.unit(),
            "donor_y": rng.unit(),
            "donor_x": rng.unit(),
            "texture": rng.noise_seed(),
        }
        return family, params | family.draw(rng, Frame(height=height, width=width, size=self.size))

    def propose(
        self, images: torch.Tensor, rows: list[int], seeds: list[int], part: torch.Tensor | None
    ) -> Iterator[Proposal]:
        """Propose one defect for each row; see :meth:`AnomalyGenerator.propose`."""
        height, width = images.shape[-2:]
        cells = None if part is None else part.cpu().numpy()[:, 0]
        grey = _is_grey(images)
        groups: dict[tuple[str, int, int], list[tuple[int, Params]]] = defaultdict(list)
        for row, seed in zip(rows, seeds, strict=True):
            family, params = self.make_params(seed, height, width)
            h, w = _window_side(params["extent_y"], height), _window_side(params["extent_x"], width)
            cell_map = None if cells is None else cells[row]
            params["centre_y"], params["centre_x"] = _place(family, params, cell_map, height, width)
            groups[family.name, h, w].append((row, params))
        for (name, h, w), members in groups.items():
            chunk = max(1, _CHUNK_PIXELS[images.device.type != "cpu"] // (h * w))
            for start in range(0, len(members), chunk):
                yield self._render(images, REGISTRY[name], members[start : start + chunk], (h, w), part, grey)

    def _render(
        self,
        images: torch.Tensor,
        family: Family,
        members: list[tuple[int, Params]],
        size: tuple[int, int],
        part: torch.Tensor | None,
        grey_images: list[bool],
    ) -> Proposal:
        """Render the members of one group, which share a family and a window size."""
        h, w = size
        height, width = images.shape[-2:]
        rows = [row for row, _ in members]
        listed = [params for _, params in members]
        top = [min(max(int(p["centre_y"]) - h // 2, 0), height - h) for p in listed]
        left = [min(max(int(p["centre_x"]) - w // 2, 0), width - w) for p in listed]
        params = _stack_params(listed, images.device)
        x, y = _coordinates(left, w, images.device), _coordinates(top, h, images.device).transpose(2, 3)
        image = crop(images, rows, top, left, h, w)
        window = Window(
            image=image,
            x=x + 0.5 - params["centre_x"],
            y=y + 0.5 - params["centre_y"],
            foreground=torch.ones_like(image[:, :1])
            if part is None
            else crop_grid(part, rows, top, left, size, (height, width)),
            background=self._background(images),
            donor=self._cut_donors(images, family, members, top, left, size) if family.needs == "donor" else None,
            texture=self._cut_textures(image, listed) if family.needs == "texture" else None,
        )
        layer = family.render(window, params)
        grey = [grey_images[row] for row in rows]
        return Proposal(
            rows=rows,
            top=top,
            left=left,
            target=_greyed(layer.target, grey) if any(grey) else layer.target,
            alpha=layer.alpha * params["strength"],
            support=layer.alpha > 0.05,
            families=[family.name] * len(rows),
            captions=[
                f"{drop_colours(family.caption(p)) if grey[n] else family.caption(p)}, {_contrast(p['strength'])}"
                for n, p in enumerate(listed)
            ],
            params=listed,
        )

    def _background(self, images: torch.Tensor) -> torch.Tensor:
        """Return the colour behind the part, (1, C, 1, 1); mid-grey when unprepared."""
        if self.prepared is None:
            return images.new_full((1, images.shape[1], 1, 1), 0.5)
        return self.prepared.background.to(images.device).view(1, -1, 1, 1)

    def _cut_donors(
        self,
        images: torch.Tensor,
        family: Family,
        members: list[tuple[int, Params]],
        top: list[int],
        left: list[int],
        size: tuple[int, int],
    ) -> torch.Tensor:
        """Cut a window out of a prepared normal for each member; unprepared, out of another place of the image."""
        h, w = size
        height, width = images.shape[-2:]
        if family.donor_place == "any" or self.prepared is None:
            top = [int(p["donor_y"] * (height - h + 1)) for _, p in members]
            left = [int(p["donor_x"] * (width - w + 1)) for _, p in members]
        if self.prepared is None:
            return crop(images, [row for row, _ in members], top, left, h, w)
        bank = self._donors_on(images.device)
        index = [int(p["donor"] * len(bank)) for _, p in members]
        if bank.shape[-2:] != (height, width):
            bank = F.interpolate(bank[index].float(), size=(height, width), mode="bilinear").round()
            index = list(range(len(members)))
        return crop(bank, index, top, left, h, w).float().mul(1 / 255)

    def _donors_on(self, device: torch.device) -> torch.Tensor:
        """Return the donors on a device, kept there for the next call."""
        if self._donors is None or self._donors.device != device:
            self._donors = self.prepared.donors.to(device)
        return self._donors

    def _cut_textures(self, image: torch.Tensor, listed: list[Params]) -> torch.Tensor:
        """Return a foreign texture for each window, from the user's folder or rendered."""
        cut = [self._textures.cut(Draws(int(p["texture"])), image.shape[-2:], image.shape[1]) for p in listed]
        return (cut[0].unsqueeze(0) if len(cut) == 1 else torch.stack(cut)).to(image.device)


def _check_families(families: Sequence[str] | Mapping[str, float] | None) -> dict[str, float]:
    """Return family weights by name, in the registry's order."""
    if families is None:
        return dict.fromkeys(REGISTRY, 1.0)
    if isinstance(families, str):
        families = [families]
    weights = dict(families) if hasattr(families, "keys") else dict.fromkeys(families, 1.0)
    unknown = [name for name in weights if name not in REGISTRY]
    if unknown or not weights:
        msg = f"`families` must name known families, got {unknown}. Known: {', '.join(REGISTRY)}."
        raise ValueError(msg)
    for name, weight in weights.items():
        if isinstance(weight, str) or not (weight >= 0 and math.isfinite(weight)):
            msg = f"`families` weights must be finite and >= 0, got {name}: {weight}."
            raise ValueError(msg)
    if not any(weights.values()):
        msg = f"`families` must have a positive weight, got {weights}."
        raise ValueError(msg)
    return {name: float(weights[name]) for name in REGISTRY if weights.get(name)}


def _check_range(name: str, value: tuple[float, float]) -> tuple[float, float]:
    if not hasattr(value, "__len__") or len(value) != 2 or not 0 < value[0] <= value[1] <= 1:
        msg = f"`{name}` must satisfy 0 < min <= max <= 1, got {value}. For one value, give it twice."
        raise ValueError(msg)
    return float(value[0]), float(value[1])


def _window_side(extent: float, limit: int) -> int:
    """Return the smallest standard side that holds the extent, at most the image's: few sizes make large groups."""
    return min(limit, next((side for side in _WINDOW_SIDES if side >= extent), limit))


def _place(family: Family, params: Params, cells: np.ndarray | None, height: int, width: int) -> tuple[float, float]:
    """Return the centre (row, column) in pixels: in a random cell of the part or of its edge."""
    if cells is not None and family.place == "edge" and not cells.all():
        padded = np.pad(cells, 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        candidates = np.flatnonzero(cells & ~inner)
    else:
        candidates = None if cells is None else np.flatnonzero(cells)
        if family.place == "edge":
            return _on_border(params, height, width)
    if candidates is None or len(candidates) == 0:
        return params["place_y"] * height, params["place_x"] * width
    row, column = divmod(int(candidates[int(params["place"] * len(candidates))]), cells.shape[1])
    return (row + params["place_y"]) / cells.shape[0] * height, (column + params["place_x"]) / cells.shape[1] * width


def _on_border(params: Params, height: int, width: int) -> tuple[float, float]:
    """Return a place on one of the image's four borders: a part that fills the image ends there."""
    side = int(params["place"] * 4)
    along_y, along_x = params["place_y"] * height, params["place_x"] * width
    return [(0.0, along_x), (height - 1.0, along_x), (along_y, 0.0), (along_y, width - 1.0)][side]


def _coordinates(start: list[int], length: int, device: torch.device) -> torch.Tensor:
    """Return pixel positions (N, 1, 1, length) from each start."""
    first = torch.tensor(start, device=device).view(-1, 1, 1, 1)
    return first + torch.arange(length, device=device)


def _stack_params(listed: list[Params], device: torch.device) -> dict[str, torch.Tensor]:
    """Turn N parameter records into (N, 1, 1, 1) float32 tensors by name, in one transfer."""
    names = list(listed[0])
    table = torch.tensor([[p[name] for p in listed] for name in names], dtype=torch.float32).to(device)
    return {name: table[i].view(-1, 1, 1, 1) for i, name in enumerate(names)}


def _is_grey(image: torch.Tensor) -> list[bool]:
    """Return for each image (B, C, H, W) whether it has no colour; judged on every 64th pixel."""
    sparse = image[..., ::8, ::8].contiguous()
    return ((sparse.amax(1) - sparse.amin(1)).flatten(1).amax(1) <= 1 / 255).tolist()


def _greyed(target: torch.Tensor, grey: list[bool]) -> torch.Tensor:
    """Take the colour out of the targets of grey windows: a grey camera sees no red fibre."""
    level = sum(target.unbind(1)) * (1 / target.shape[1])
    rows = torch.tensor(grey, device=target.device).view(-1, 1, 1, 1)
    return torch.where(rows, level.unsqueeze(1), target)


def _contrast(strength: float) -> str:
    return "low contrast" if strength < 0.45 else "high contrast" if strength > 0.75 else "medium contrast"

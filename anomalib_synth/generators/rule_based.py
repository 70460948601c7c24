"""Rule-based synthesis: every hand-made family of the field behind one generator."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn import functional as F

from anomalib_synth.functional.background import colour_beside
from anomalib_synth.functional.colour import find_grey, take_colour_out
from anomalib_synth.functional.foreground import refine_part
from anomalib_synth.functional.layers import Window
from anomalib_synth.generators.families import REGISTRY, Family, Frame
from anomalib_synth.generators.families.family import Params, contrast_word, drop_colours
from anomalib_synth.generators.families.palette import measure_palettes
from anomalib_synth.generators.families.registry import import_modules, load_installed_families, own_modules
from anomalib_synth.generators.placement import place_centre, window_side
from anomalib_synth.generators.proposal import Proposal, crop, crop_grid
from anomalib_synth.generators.proposing import ProposingGenerator
from anomalib_synth.generators.seeding import RandomStream
from anomalib_synth.generators.textures import ProceduralTextures, TextureFolder, TextureSource
from anomalib_synth.generators.validation import check_range

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from anomalib_synth.generators.checks import SampleChecks
    from anomalib_synth.generators.condition import Condition
    from anomalib_synth.generators.families.palette import Palette
    from anomalib_synth.generators.prepared import PreparedNormals

_CHUNK_PIXELS = (2**17, 2**25)  # a CPU is fastest while a group's tensors stay in its cache, a GPU when they fill it


class RuleBasedGenerator(ProposingGenerator):
    """Draws defects by rules: the augmentations of the literature, and the defects that a line engineer names.

    A family draws its parameters from the sample's own seed. It renders them in a window just large enough, in one
    batch with the other samples of the family whose windows have the same size. Strength scales the change of every
    pixel linearly, so visibility grows with it monotonically. Each family's paper is the ``source`` of its row in the
    registry; ``anomalib-synth families`` lists them.

    Args:
        families: Names, or names with weights >= 0 (need not sum to 1). None takes all but the regional ones, evenly.
        strength: Smallest and largest strength, 0 < min <= max <= 1. 1 is the family's full effect.
        size: Smallest and largest linear size of a defect as a share of the shorter side, 0 < min <= max <= 1; drawn
            log-uniformly. Thin defects are up to three times as long, but not longer than the image.
        texture_dir: Folder with texture images (DTD or any) for the families that blend foreign textures. None
            renders procedural textures. Read on first use, never downloaded.
        checks: Limits a sample must keep.
        foreground: ``"auto"``, the path of a mask image, or None for the whole image.
        max_attempts: Draws per sample before it is given back unchanged.
        seed: Base seed, used when a call names no seeds.

    Raises:
        ValueError: If a family is unknown, a weight is negative or not finite, all weights are 0, or a range is out of
            order.

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
        size: tuple[float, float] = (0.03, 0.33),
        texture_dir: str | Path | None = None,
        checks: SampleChecks | None = None,
        foreground: str | Path | None = "auto",
        max_attempts: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(checks=checks, foreground=foreground, max_attempts=max_attempts, seed=seed)
        self.families = _check_families(families)
        self.strength = check_range("strength", strength)
        self.size = check_range("size", size)
        self.texture_dir = texture_dir
        self._textures: TextureSource = ProceduralTextures() if texture_dir is None else TextureFolder(texture_dir)
        self._donors: torch.Tensor | None = None

    @staticmethod
    def available_families() -> list[str]:
        """Return the names of all families: the literature's, the physical ones, and those that users added."""
        load_installed_families()
        return list(REGISTRY)

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes, and the modules of users' families, which another process must import first."""
        return {"modules": own_modules(), "attributes": vars(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Import those modules, then take the attributes."""
        import_modules(state["modules"])
        vars(self).update(state["attributes"])

    @property
    def files(self) -> list[Path]:
        """The files that samples depend on besides the images: a mask of the part, textures."""
        textures = self._textures.files if isinstance(self._textures, TextureFolder) else []
        return [*super().files, *textures]

    def only(self, family: str) -> RuleBasedGenerator:
        """Return a copy of this generator, prepared like it, that draws only one family."""
        return self.replace(families={family: 1.0})

    def use_prepared(self, prepared: PreparedNormals) -> None:
        """Take normals that were measured before; see :meth:`AnomalyGenerator.use_prepared`."""
        super().use_prepared(prepared)
        self._donors = None

    def make_params(self, seed: int, height: int, width: int, palette: Palette | None = None) -> tuple[Family, Params]:
        """Draw the family and the parameters of one sample.

        Args:
            seed: Seed of the draw.
            height: Height of the image in pixels.
            width: Width of the image in pixels.
            palette: The product's colours. None takes those of the prepared normals; unprepared, it allows any colour.

        Returns:
            The family, and its parameters with ``strength`` and the numbers that place the defect, all plain floats.
        """
        rng = RandomStream(seed)
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
        palette = palette or (self.prepared.palette if self.prepared else None)
        frame = Frame(height=height, width=width, size=self.size, palette=palette)
        return family, params | family.draw(rng, frame)

    def propose(
        self, images: torch.Tensor, rows: list[int], seeds: list[int], part: torch.Tensor | None, condition: Condition
    ) -> Iterator[Proposal]:
        """Propose one defect for each row; see :meth:`ProposingGenerator.propose`."""
        height, width = images.shape[-2:]
        cells = None if part is None else part.cpu().numpy()[:, 0]
        grey = find_grey(images)
        palettes = measure_palettes(images) if self.prepared is None else [None] * len(images)
        groups: dict[tuple[str, int, int], list[tuple[int, Params]]] = defaultdict(list)
        for row, seed in zip(rows, seeds, strict=True):
            family, params = self.make_params(seed, height, width, palettes[row])
            h, w = _locate(family, params, None if cells is None else cells[row], height, width)
            groups[family.name, h, w].append((row, params))
        for (name, h, w), members in groups.items():
            chunk = max(1, _CHUNK_PIXELS[images.device.type != "cpu"] // (h * w))
            for start in range(0, len(members), chunk):
                yield self._render(images, REGISTRY[name], members[start : start + chunk], (h, w), part, grey)

    def propose_one(
        self,
        images: torch.Tensor,
        row: int,
        family: Family,
        params: Params,
        part: torch.Tensor | None,
        *,
        cells: np.ndarray | None = None,
    ) -> Proposal:
        """Propose one defect of a family with parameters from :meth:`make_params`.

        Args:
            images: (B, C, H, W) float32 in [0, 1], the whole batch.
            row: Row of the batch.
            family: The family.
            params: Its parameters, to which the centre is added.
            part: (B, 1, h, w) bool, where the part is; None: everywhere.
            cells: (h, w) bool on any grid, where the centre may be; None: everywhere.
        """
        size = _locate(family, params, cells, *images.shape[-2:])
        grey = find_grey(images[row : row + 1]) * len(images)
        return self._render(images, family, [(row, params)], size, part, grey)

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
        cells = (
            torch.ones_like(image[:, :1]) if part is None else crop_grid(part, rows, top, left, size, (height, width))
        )
        window = Window(
            image=image,
            x=x + 0.5 - params["centre_x"],
            y=y + 0.5 - params["centre_y"],
            foreground=cells,
            background=self._background(images, family, image, cells, part, (rows, top, left)),
            donor=self._cut_donors(images, family, members, top, left, size) if family.needs == "donor" else None,
            texture=self._cut_textures(image, listed) if family.needs == "texture" else None,
        )
        layer = family.render(window, params)
        alpha = layer.alpha * params["strength"]
        if part is not None and family.place == "inside":
            alpha = alpha * self.part_in_windows(image, cells, part.shape[-2:], (height, width))
        grey = [grey_images[row] for row in rows]
        return Proposal(
            rows=rows,
            top=top,
            left=left,
            target=take_colour_out(layer.target, grey) if any(grey) else layer.target,
            alpha=alpha,
            support=layer.alpha > 0.05,
            families=[family.name] * len(rows),
            captions=[
                f"{drop_colours(family.caption(p)) if grey[n] else family.describe(p)}, {contrast_word(p['strength'])}"
                for n, p in enumerate(listed)
            ],
            params=listed,
        )

    def part_in_windows(
        self, windows: torch.Tensor, cells: torch.Tensor, grid: tuple[int, int] | torch.Size, size: tuple[int, int]
    ) -> torch.Tensor:
        """Return the part in windows, (N, 1, h, w) in {0, 1}; if prepared, cells at its edge are decided by pixel.

        Args:
            windows: (N, C, h, w), cut out of images.
            cells: (N, 1, h, w) in {0, 1}, the part's cells in the windows.
            grid: Rows and columns of cells in an image.
            size: Height and width of the images.
        """
        threshold = self.prepared.foreground.threshold if self.prepared else None
        cell = max(-(-size[0] // grid[0]), -(-size[1] // grid[1]))
        if threshold is None or cell == 1:
            return cells
        return refine_part(windows, cells, threshold, cell)

    def _background(
        self,
        images: torch.Tensor,
        family: Family,
        windows: torch.Tensor,
        cells: torch.Tensor,
        part: torch.Tensor | None,
        places: tuple[list[int], list[int], list[int]],
    ) -> torch.Tensor:
        """Return the colour behind the part, (N or 1, C, 1, 1); mid-grey when unprepared.

        Args:
            images: (B, C, H, W), the whole batch.
            family: The family; only one that needs the background gets that of each window.
            windows: (N, C, h, w), cut out of the images.
            cells: (N, 1, h, w) in {0, 1}, the part's cells in the windows.
            part: (B, 1, gh, gw) bool, the part's cells; None: everywhere.
            places: Row, top and left of each window.
        """
        if self.prepared is None:
            return images.new_full((1, images.shape[1], 1, 1), 0.5)
        typical = self.prepared.background.to(images.device).view(1, -1, 1, 1)
        if part is None or family.needs != "background":
            return typical
        window, size = (windows.shape[-2], windows.shape[-1]), (images.shape[-2], images.shape[-1])
        near = F.max_pool2d(part.float(), 3, stride=1, padding=1)  # cells next to the part show some of it
        return colour_beside(windows, cells, 1 - crop_grid(near, *places, window, size), typical)

    def _cut_donors(
        self,
        images: torch.Tensor,
        family: Family,
        members: list[tuple[int, Params]],
        top: list[int],
        left: list[int],
        size: tuple[int, int],
    ) -> torch.Tensor:
        """Cut a window out of a prepared normal for each member; unprepared, from another place of its own image."""
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
        donors = self._donors
        if donors is None or donors.device != device:
            self._donors = donors = cast("PreparedNormals", self.prepared).donors.to(device)
        return donors

    def _cut_textures(self, image: torch.Tensor, listed: list[Params]) -> torch.Tensor:
        """Return a texture for each window: from the user's folder, rendered, or the window itself if structural."""
        size, channels = image.shape[-2:], image.shape[1]
        cut = [
            image[n] if p.get("structural") else self._textures.cut(RandomStream(int(p["texture"])), size, channels)
            for n, p in enumerate(listed)
        ]
        return torch.stack([texture.to(image.device) for texture in cut])


def _check_families(families: Sequence[str] | Mapping[str, float] | None) -> dict[str, float]:
    """Return family weights by name, in the registry's order."""
    if families is None:
        return {name: 1.0 for name, family in REGISTRY.items() if not family.regional}
    if isinstance(families, str):
        families = [families]
    given: Any = families
    weights: dict[str, Any] = dict(given) if hasattr(given, "keys") else dict.fromkeys(given, 1.0)
    if any(name not in REGISTRY for name in weights):
        load_installed_families()
    unknown = [name for name in weights if name not in REGISTRY]
    if unknown or not weights:
        msg = (
            f"`families` must name known families, got {unknown}. Known: {', '.join(REGISTRY)}. One of your own is "
            "known once `register_family` has been called, in this process too."
        )
        raise ValueError(msg)
    for name, weight in weights.items():
        if isinstance(weight, str) or not (weight >= 0 and math.isfinite(weight)):
            msg = f"`families` weights must be finite and >= 0, got {name}: {weight}."
            raise ValueError(msg)
    if not any(weights.values()):
        msg = f"`families` must have a positive weight, got {weights}."
        raise ValueError(msg)
    return {name: float(weights[name]) for name in REGISTRY if weights.get(name)}


def _locate(family: Family, params: Params, cells: np.ndarray | None, height: int, width: int) -> tuple[int, int]:
    """Add the centre of a defect to its parameters; return height and width of its window."""
    params["centre_y"], params["centre_x"] = place_centre(params, cells, height, width, edge=family.place == "edge")
    return window_side(params["extent_y"], height), window_side(params["extent_x"], width)


def _coordinates(start: list[int], length: int, device: torch.device) -> torch.Tensor:
    """Return pixel positions (N, 1, 1, length) from each start."""
    first = torch.tensor(start, device=device).view(-1, 1, 1, 1)
    return first + torch.arange(length, device=device)


def _stack_params(listed: list[Params], device: torch.device) -> dict[str, torch.Tensor]:
    """Turn N parameter records into (N, 1, 1, 1) float32 tensors by name, in one transfer."""
    names = list(listed[0])
    table = torch.tensor([[p[name] for p in listed] for name in names], dtype=torch.float32).to(device)
    return {name: table[i].view(-1, 1, 1, 1) for i, name in enumerate(names)}

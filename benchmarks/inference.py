"""How fast are our detectors against PatchCore with the same backbone? All in one run, one image at a time.

PatchCore has the coreset it would have of the normals: 10 % of their patches (random vectors of the right number and
length: its speed does not depend on their values). Our backbones fold their normalisation and keep channels last;
PatchCore's is as anomalib builds it.

    python benchmarks/inference.py --threads 2
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import TYPE_CHECKING

import torch
from anomalib.models import Patchcore

import anomalib_synth  # noqa: F401  (registers the backbone)
from anomalib_synth.detectors.discriminative_padim.score import GroupScale
from anomalib_synth.models import DiscriminativePadim, RealNet

if TYPE_CHECKING:
    from torch import nn

BACKBONE = "efficientnet_lite0_bundled"
QUIET = {"evaluator": False, "visualizer": False}
CORESET = 0.1
warnings.filterwarnings("ignore")


def make_patchcore(size: int, normals: int) -> nn.Module:
    """Return PatchCore's network with a memory bank."""
    network = Patchcore(backbone=BACKBONE, layers=["blocks.2", "blocks.4"], **QUIET).model.eval()
    features = network.feature_extractor(torch.zeros(1, 3, size, size))
    patches = normals * features["blocks.2"][0, 0].numel()
    network.memory_bank = torch.randn(int(CORESET * patches), sum(f.shape[1] for f in features.values()))
    return network


def make_realnet() -> nn.Module:
    """Return RealNet's network with some feature selection; speed does not depend on which."""
    network = RealNet(**QUIET).model.eval()
    for level, kept in enumerate(network.selector.kept):
        getattr(network.selector, f"index_{level}").copy_(torch.arange(kept))
    return network


def make_discriminative_padim(size: int) -> nn.Module:
    """Return DiscriminativePadim's network with some Gaussians; speed does not depend on which."""
    network = DiscriminativePadim(**QUIET).model.eval()
    network.make_room((size, size))
    network.mark_fitted()
    for branch in network.branches:
        torch.nn.init.normal_(branch.gaussian.whitening, std=0.1)
    distances, heads = (GroupScale(torch.ones(count), 0.0, 0.0, 1.0, 1.0) for count in (2, 4))
    network.set_score(distances, heads)
    return network


def main() -> None:
    """Time all, taking turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--normals", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=50)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    networks = {
        "PatchCore": make_patchcore(args.size, args.normals),
        "RealNet": make_realnet(),
        "DiscriminativePadim": make_discriminative_padim(args.size),
    }
    image = torch.randn(1, 3, args.size, args.size)
    times = {name: [] for name in networks}
    with torch.inference_mode():
        for network in networks.values():
            network(image)
        for _ in range(args.repeats):
            for name, network in networks.items():
                start = time.perf_counter()
                network(image)
                times[name].append(time.perf_counter() - start)
    median = {name: sorted(values)[len(values) // 2] for name, values in times.items()}
    print({name: f"{1000 * value:.1f} ms" for name, value in median.items()})
    for name in ("RealNet", "DiscriminativePadim"):
        print(f"{name} is {median['PatchCore'] / median[name]:.2f} times as fast as PatchCore")


if __name__ == "__main__":
    main()

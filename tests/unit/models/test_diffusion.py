"""The editor on a tiny checkpoint in the real format: loading, batches, what is refused, and how it is called."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from anomalib_synth.models.diffusion import CARD, DiffusionEditor, DiffusionSettings, import_diffusers
from anomalib_synth.models.pipeline_components import find_pipeline_class
from tests.unit.models.small_diffusion import make_pipeline

FAST = {"num_inference_steps": 2, "batch_size": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_pipeline(tmp_path_factory.mktemp("diffusion") / "pipeline")


@pytest.fixture(scope="module")
def editor(folder) -> DiffusionEditor:
    return DiffusionEditor(folder, DiffusionSettings(**FAST))


def draw_windows(*sides: int) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [torch.rand(3, side, side, generator=rng) for side in sides]


def with_pipe(editor: DiffusionEditor, **settings: object) -> DiffusionEditor:
    """The same loaded pipeline, run otherwise."""
    other = DiffusionEditor(editor.pipeline, DiffusionSettings(**{**FAST, **settings}))
    other.__dict__["pipe"] = editor.pipe
    return other


def test_an_edit_is_what_the_pipeline_gives_for_tensors(editor) -> None:
    (window,) = draw_windows(32)
    change = editor.edit([window], ["a thin dark scratch"], seeds=[7])[0]
    expected = editor.pipe(
        prompt=["add a thin dark scratch"] * 2, image=torch.stack([window] * 2), num_inference_steps=2,
        guidance_scale=7.5, image_guidance_scale=1.5, output_type="pt",
        generator=[torch.Generator().manual_seed(7) for _ in range(2)],
    ).images[0]  # fmt: skip
    assert torch.equal(change, expected - window)
    levels = change * 255
    assert not torch.allclose(levels, levels.round(), atol=1e-3)


def test_no_bit_depends_on_what_else_is_edited(editor) -> None:
    windows, prompts, seeds = draw_windows(32, 64, 32, 32), ["a stain", "a scratch", "", "a stain"], [1, 2, 3, 4]
    together = editor.edit(windows, prompts, seeds=seeds)
    for n in range(4):
        alone = editor.edit([windows[n]], [prompts[n]], seeds=[seeds[n]])[0]
        assert torch.equal(together[n], alone)
        assert together[n].shape == windows[n].shape


def test_seed_prompt_and_window_matter(editor) -> None:
    a, b = draw_windows(32, 32)
    changes = editor.edit([a, a, a, b], ["a stain", "a stain", "a thin dark scratch", "a stain"], seeds=[1, 2, 1, 1])
    for other in changes[1:]:
        assert not torch.equal(changes[0], other)


def test_small_windows_are_enlarged_to_the_resolution_and_odd_ones_padded(folder, editor) -> None:
    sides, run = [], editor._run
    editor._run = lambda images, *rest: sides.append(images.shape[-1]) or run(images, *rest)
    try:
        changes = editor.edit(draw_windows(20, 32, 50), ["a stain"] * 3, seeds=[1, 2, 3])
    finally:
        del editor._run
    assert sides == [32, 56]
    assert [change.shape[-1] for change in changes] == [20, 32, 50]
    assert with_pipe(editor, resolution=60).resolution == 64


def test_loading_and_editing_leave_random_state_and_inputs_alone(folder) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    windows = draw_windows(32)
    before = windows[0].clone()
    DiffusionEditor(folder, DiffusionSettings(**FAST)).edit(windows, ["a stain"], seeds=[1])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(windows[0], before)


def test_no_bars_are_shown(folder, capfd) -> None:
    from diffusers.utils import logging

    DiffusionEditor(folder, DiffusionSettings(**FAST)).edit(draw_windows(32), ["a stain"], seeds=[1])
    assert "it/s" not in capfd.readouterr().err
    assert logging.is_progress_bar_enabled()


@pytest.mark.parametrize("name", ["LCMScheduler", "EulerAncestralDiscreteScheduler"])
def test_other_schedulers_replay_too(folder, name) -> None:
    settings = DiffusionSettings(num_inference_steps=3, batch_size=2, scheduler=name)
    editor = DiffusionEditor(folder, settings)
    windows = draw_windows(32, 32, 32)
    together = editor.edit(windows, ["a stain"] * 3, seeds=[1, 2, 3])
    assert type(editor.pipe.scheduler).__name__ == name
    assert torch.equal(editor.edit(windows[2:], ["a stain"], seeds=[3])[0], together[2])


def test_an_inpainting_pipeline_is_told_the_region(tmp_path) -> None:
    editor = DiffusionEditor(make_pipeline(tmp_path / "inpaint", inpainting=True), DiffusionSettings(**FAST))
    window, region = draw_windows(32)[0], torch.zeros(1, 32, 32)
    left, right = region.clone(), region.clone()
    left[..., :16], right[..., 16:] = 1, 1
    changes = editor.edit([window] * 2, ["a stain"] * 2, seeds=[1, 1], masks=[left, right])
    assert not torch.equal(changes[0], changes[1])


def test_guidance_is_the_cards_where_there_is_one_and_the_users_where_set(folder, tmp_path) -> None:
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    assert DiffusionEditor(own).guidance == {"guidance_scale": 7.5, "image_guidance_scale": 1.5}
    (own / CARD).write_text('{"recommended": {"guidance_scale": 2.0}, "words": ["scratch"]}', encoding="utf-8")
    assert DiffusionEditor(own).guidance["guidance_scale"] == 2.0
    asked = DiffusionEditor(own, DiffusionSettings(guidance_scale=3.0))
    assert asked.guidance["guidance_scale"] == 3.0
    assert asked.find_unknown("scratch stain") == ["stain"]
    assert DiffusionEditor(folder).find_unknown("anything") == []


def test_weights_hash_follows_the_contents_and_not_the_place(folder, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert DiffusionEditor(copy).weights_hash == DiffusionEditor(folder).weights_hash
    (copy / "notes.txt").write_text("not read", encoding="utf-8")
    assert DiffusionEditor(copy).weights_hash == DiffusionEditor(folder).weights_hash
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert DiffusionEditor(copy).weights_hash != DiffusionEditor(folder).weights_hash


def test_a_snapshot_in_the_cache_serves_an_id_and_names_its_commit(folder, tmp_path, monkeypatch) -> None:
    import diffusers

    snapshot = tmp_path / "snapshots" / "0123abcd"
    shutil.copytree(folder, snapshot)

    def download(name: str, *, use_safetensors: bool, local_files_only: bool = False) -> str:
        assert (name, use_safetensors, local_files_only) == ("who/what", True, True)
        return str(snapshot)

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", download)
    editor = DiffusionEditor("who/what", DiffusionSettings(**FAST))
    assert editor.weights_hash == "who/what@0123abcd"
    assert editor.edit(draw_windows(32), ["a stain"], seeds=[1])[0].shape == (3, 32, 32)


@pytest.mark.parametrize("name", ["timbrooks/instruct-pix2pix", "no/such/folder", "/missing"])
def test_three_remedies_are_named_when_there_is_no_pipeline(name, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    editor = DiffusionEditor(name)
    with pytest.raises(ValueError, match=r"(?s)\(1\) name a folder .*\(2\) run once with network.*fit --diffusion"):
        editor.edit(draw_windows(32), ["a stain"], seeds=[1])


def test_pickled_weights_are_refused(tmp_path) -> None:
    folder = make_pipeline(tmp_path / "pickled", safe=False)
    assert list(folder.rglob("*.bin"))
    with pytest.raises(ValueError, match="cannot load the pipeline"):
        DiffusionEditor(folder).pipe  # noqa: B018


def test_code_of_a_repository_is_never_run(folder, tmp_path) -> None:
    custom = tmp_path / "custom"
    shutil.copytree(folder, custom)
    index = (custom / "model_index.json").read_text(encoding="utf-8")
    changed = index.replace('"StableDiffusionInstructPix2PixPipeline"', '["pipeline", "Custom"]')
    (custom / "model_index.json").write_text(changed, encoding="utf-8")
    (custom / "pipeline.py").write_text("raise SystemExit('run')", encoding="utf-8")
    with pytest.raises(ValueError, match="must be a class of diffusers"):
        DiffusionEditor(custom).pipe  # noqa: B018


@pytest.mark.parametrize("entry", [None, [None, None], "UNet2DConditionModel", ["diffusers"]])
def test_components_that_the_index_does_not_name_are_refused_by_name(folder, entry) -> None:
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    changed = {**index, "unet": entry, "vae": entry}
    with pytest.raises(ValueError, match=r"must name library and class of each component, .* none for unet, vae\."):
        find_pipeline_class(changed, import_diffusers(), pipeline="mine")
    find_pipeline_class(index, import_diffusers(), pipeline="mine")


def test_a_pipeline_without_an_image_is_refused(folder, tmp_path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    index = (other / "model_index.json").read_text(encoding="utf-8")
    changed = index.replace("StableDiffusionInstructPix2PixPipeline", "StableDiffusionPipeline")
    (other / "model_index.json").write_text(changed, encoding="utf-8")
    with pytest.raises(ValueError, match="takes no image"):
        DiffusionEditor(other).pipe  # noqa: B018


def test_offload_needs_an_accelerator(editor) -> None:
    with pytest.raises(ValueError, match="`offload` 'model' needs an accelerator"):
        with_pipe(editor, offload="model").edit(draw_windows(32), ["a stain"], seeds=[1])


def test_values_that_are_not_finite_are_named(editor) -> None:
    broken = with_pipe(editor)
    broken.__dict__["pipe"] = DiffusionEditor(editor.pipeline).pipe
    broken.pipe.vae.decoder.conv_out.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite in float32"):
        broken.edit(draw_windows(32), ["a stain"], seeds=[1])


def test_missing_diffusers_names_the_extra(folder, monkeypatch) -> None:
    real = builtins.__import__

    def fail(name: str, *args: object, **kwargs: object) -> object:
        if name == "diffusers":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(ImportError, match=r"pip install .*\[diffusion\]"):
        DiffusionEditor(folder).pipe  # noqa: B018


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_inference_steps": 0}, "`num_inference_steps` must be >= 1"),
        ({"guidance_scale": 0.5}, "`guidance_scale` must be >= 1"),
        ({"dtype": "int8"}, "`dtype` must be one of"),
        ({"offload": "disk"}, "`offload` must be one of"),
        ({"instruction": "draw"}, "`instruction` must hold"),
    ],
)
def test_bad_settings_are_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        DiffusionSettings(**settings)


def test_an_unknown_scheduler_is_named(folder) -> None:
    with pytest.raises(ValueError, match="`scheduler` must name a scheduler of diffusers"):
        DiffusionEditor(folder, DiffusionSettings(scheduler="FastestScheduler")).pipe  # noqa: B018

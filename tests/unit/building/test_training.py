"""A candidate's run folder."""

from __future__ import annotations

import copy

import pytest
import torch
import yaml

from anomalib_synth.building.candidates import make_config
from anomalib_synth.building.data_folders import DataFolders
from anomalib_synth.building.training import checkpoint_of, train_candidate
from anomalib_synth.calibration.checkpoints import load_model, read_checkpoint
from anomalib_synth.generators import RuleBasedGenerator
from tests.conftest import save_images
from tests.contract import render_normals


@pytest.mark.parametrize("name", ["padim", "patchcore"])
def test_run_folder_is_read_by_other_commands_and_its_configuration_is_as_it_was(name, tmp_path) -> None:
    for part, count in (("train", 6), ("validation", 3)):
        save_images(tmp_path / "images" / part, render_normals(count, 3, 32, 32, seed=count))
    folders = DataFolders(root=tmp_path / "images", learned=[], marks=None, judged=0, groups={})
    config = make_config(name, folders, RuleBasedGenerator(["hole"]).config, seed=0, accelerator="cpu")
    before = copy.deepcopy(config)
    told: list[float] = []
    train_candidate(config, tmp_path / "run", advance=told.append)
    assert config == before  # or the next build would train again
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text()) == before
    assert told[-1] == 1.0
    checkpoint = checkpoint_of(tmp_path / "run")
    loaded = read_checkpoint(checkpoint)
    model, found = load_model(None, checkpoint, loaded)
    assert found == tmp_path / "run" / "config.yaml"
    model.load_state_dict(loaded["state_dict"])
    assert bool(torch.isfinite(model.eval()(torch.rand(1, 3, 32, 32)).pred_score).all())

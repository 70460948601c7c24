"""Every file in configs/ runs through anomalib's own command line, with small networks and few images."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from anomalib.models import Dsr
from PIL import Image

from anomalib_synth.commands.generate import generate
from anomalib_synth.generators import StoredGenerator
from tests.contract import render_normals
from tests.integration.config_runs import BASE, CONFIGS, run_cli, short
from tests.unit.models.small_diffusion import make_pipeline
from tests.warm_python import Ended, run_warm

SYNTHESIS = sorted((CONFIGS / "synthesis").rglob("*.yaml"))
TRAIN = sorted((CONFIGS / "train").rglob("*.yaml"))
ADDITIONS = {  # to another overlay
    "weighted": "QualityWeightingCallback",
    "two_stage": "TwoStageTrainingCallback",
    "two_stage_physical": "TwoStageTrainingCallback",
}
STORED = {"stored", "two_stage"}  # what serves kept samples is not for the model below


def demo_arguments(config: dict, tmp_path: Path) -> list[str]:
    """Few and small images for the demo data of a config."""
    wrapped = "base" in config["data"]["init_args"]
    if wrapped and config["data"]["init_args"]["base"]["class_path"] == "anomalib.data.Folder":
        small = {"root": tmp_path / "parts", "train_batch_size": 2, "num_workers": 0}
        arguments = [f"--data.init_args.base.init_args.{name}={value}" for name, value in small.items()]
        return [*arguments, f"--data.init_args.root={tmp_path / 'synthetic'}"]
    prefix = "--data.init_args.base.init_args" if wrapped else "--data.init_args"
    values = {
        "root": tmp_path / "demo",
        "category": "printed_cap",
        "image_size": 96,
        "num_train": 6,
        "num_test_good": 2,
        "num_test_defect": 2,
        "train_batch_size": 2,
        "num_workers": 0,
    }
    arguments = [f"{prefix}.{name}={value}" for name, value in values.items()]
    return [*arguments, f"--data.init_args.root={tmp_path / 'synthetic'}"] if wrapped else arguments


def make_small(part: Any, side: int) -> Any:
    """The same configuration for small images."""
    if isinstance(part, list):
        return [make_small(each, side) for each in part]
    if not isinstance(part, dict):
        return part
    sizes = {"size": [side, side], "input_shape": [side, side], "scales": [side]}
    return {
        name: sizes[name] if name in sizes and isinstance(value[0], int) else make_small(value, side)
        for name, value in part.items()
    }


def test_there_are_configs() -> None:
    assert {file.stem for file in TRAIN} >= {
        "draem", "dsr", "glass", "supersimplenet", "patchcore", "quickstart", "realnet", "realnet_two_stage",
        "two_stage_diffusion", "folder", "discriminative_padim",
    }  # fmt: skip
    assert {file.stem for file in SYNTHESIS} >= {
        "rule_based",
        "physical",
        "literature",
        "mixture",
        "real_defects",
        "few_real_defects",
        "look_alikes",
        *ADDITIONS,
    }
    compared = set((CONFIGS / "compare").glob("*.yaml"))  # test_compare.py runs these
    assert {*SYNTHESIS, *TRAIN} == set(CONFIGS.rglob("*.yaml")) - compared


@pytest.mark.slow
@pytest.mark.parametrize("file", TRAIN, ids=lambda file: file.stem)
def test_complete_config_trains_and_tests(file, parts_root, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    config = make_small(yaml.safe_load(file.read_text(encoding="utf-8")), 128 if file.stem == "supersimplenet" else 64)
    small_file = tmp_path / f"{file.stem}.yaml"
    small_file.write_text(yaml.safe_dump(config), encoding="utf-8")
    arguments = []
    if file.stem == "dsr":
        weights = tmp_path / "vq_model.pckl"
        torch.save(Dsr().model.discrete_latent_model.state_dict(), weights)
        monkeypatch.setattr(Dsr, "prepare_pretrained_model", staticmethod(lambda: weights))
        arguments = ["--model.init_args.upsampling_train_ratio=0.0"]
    if not {"pre_processor", "scales"} & set(config["model"].get("init_args", {})):
        resize = {"class_path": "torchvision.transforms.v2.Resize", "init_args": {"size": [64, 64]}}
        arguments += [
            "--model.init_args.pre_processor=anomalib.pre_processing.PreProcessor",
            f"--model.init_args.pre_processor.init_args.transform={resize}",
        ]
    if file.stem == "realnet_paper":
        small = {"backbone": "resnet10t", "pre_trained": False, "feature_dims": [16] * 4, "residual_dims": [16, 16]}
        arguments = [f"--model.init_args.{name}={value}" for name, value in small.items()]
    if file.stem == "folder":
        shutil.copytree(parts_root / "train" / "good", tmp_path / "parts" / "good")
        arguments = ["--config", str(CONFIGS / "synthesis" / "rule_based.yaml")]
    if file.stem == "two_stage_diffusion":
        generate(parts_root / "train" / "good", out=tmp_path / "store", num_samples=4, image_size=64)
        monkeypatch.chdir(tmp_path)
    limits = {"limit_train_batches": 2} if "RealNet" in config["model"]["class_path"] else {}
    if "val_check_interval" in config["trainer"]:  # in steps, of which there are more than here
        limits["val_check_interval"] = 1.0
    run_cli(
        "train", "--config", str(small_file), "--default_root_dir", str(tmp_path / "results"), *arguments,
        *short(**limits),
        "--seed_everything", "0", *demo_arguments(config, tmp_path),
    )  # fmt: skip
    assert list((tmp_path / "results").rglob("*.ckpt"))
    if file.stem == "glass":  # it draws on every image
        assert list((tmp_path / "results").rglob("synthesis/epoch_0000.png"))


@pytest.mark.parametrize(
    "file",
    [f for f in SYNTHESIS if f.stem not in {"labels_from_masks", "few_real_defects", *STORED}],
    ids=lambda file: file.stem,
)
def test_overlay_adds_to_the_config_a_user_runs(file, parts_root, tmp_path, monkeypatch) -> None:
    from anomalib.engine import Engine

    base = tmp_path / "base.yaml"
    base.write_text(BASE.format(root=parts_root), encoding="utf-8")
    shutil.copytree(parts_root, tmp_path / "real_defects")
    if file.stem == "diffusion_retrieval":  # in place of the repository of that name
        make_pipeline(tmp_path / "timbrooks" / "instruct-pix2pix")
    monkeypatch.chdir(tmp_path)
    seen = []
    train = Engine.train

    def watch(self: Engine, *args: object, **kwargs: object) -> None:
        seen.extend(type(callback).__name__ for callback in self._cache.args["callbacks"])
        self.fit(kwargs["model"], datamodule=kwargs["datamodule"])

    monkeypatch.setattr(Engine, "train", watch)
    overlays = [CONFIGS / "synthesis" / "literature.yaml", file] if file.stem in ADDITIONS else [file]
    run_cli(
        "train", "--config", str(base), *(f"--config={overlay}" for overlay in overlays),
        "--default_root_dir", str(tmp_path / "results"), *short(logger="true", limit_train_batches=4),
    )  # fmt: skip
    assert train is not Engine.train
    assert {"LearningRateMonitor", "SynthesisCallback", ADDITIONS.get(file.stem, "SynthesisCallback")} <= set(seen)
    if file.stem != "diffusion_retrieval":  # random weights draw nothing that is visible
        assert list((tmp_path / "results").rglob("synthesis/epoch_0000.png"))


@pytest.mark.parametrize("masks", [True, False])
def test_few_real_defects_are_learned_with_and_without_masks(masks, parts_root, tmp_path, monkeypatch) -> None:
    shutil.copytree(parts_root / "train" / "good", tmp_path / "parts" / "good")
    shutil.copytree(parts_root / "test", tmp_path / "real_defects" / "test")
    if masks:
        shutil.copytree(parts_root / "ground_truth", tmp_path / "real_defects" / "ground_truth")
    monkeypatch.chdir(tmp_path)
    run_cli(
        "train", "--config", str(CONFIGS / "train" / "folder.yaml"),
        "--config", str(CONFIGS / "synthesis" / "few_real_defects.yaml"), "--model.init_args.scales=[64]",
        "--default_root_dir", str(tmp_path / "results"), "--data.init_args.base.init_args.num_workers=0",
        *short(limit_train_batches=2, val_check_interval=1.0),
    )  # fmt: skip
    checkpoint = next((tmp_path / "results").rglob("*.ckpt"))
    state = torch.load(checkpoint, weights_only=False)
    learned = state["anomalib_synth_learned"]
    assert len(learned) == len([path for path in (parts_root / "test").rglob("*.png") if path.parent.name != "good"])
    assert bool(state["state_dict"]["model.has_heads"])


def test_labels_overlay_trains_with_a_transform(parts_root, tmp_path, monkeypatch) -> None:
    from anomalib.engine import Engine

    config = yaml.safe_load(BASE.format(root=parts_root))
    config["model"] = {
        "class_path": "anomalib.models.Supersimplenet",
        "init_args": {
            "supervised": True,
            "backbone": "efficientnet_lite0_bundled",
            "layers": ["blocks.2", "blocks.4"],
            "evaluator": False,
            "visualizer": False,
        },
    }
    transform = {
        "class_path": "anomalib_synth.transforms.SyntheticAnomaly",
        "init_args": {
            "generator": {
                "class_path": "anomalib_synth.generators.RuleBasedGenerator",
                "init_args": {"families": ["cutout"]},
            },
            "probability": 1.0,
        },
    }
    config["data"]["class_path"] = "anomalib.data.MVTecAD"
    config["data"]["init_args"] = {
        "root": str(parts_root.parent),
        "category": "part",
        "train_batch_size": 4,
        "num_workers": 0,
        "val_split_mode": "from_train",
        "train_augmentations": transform,
        "seed": 0,
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    overlay = CONFIGS / "synthesis" / "labels_from_masks.yaml"
    labels = []
    step = __import__("anomalib.models", fromlist=["Supersimplenet"]).Supersimplenet.training_step

    def watch(self: object, batch: object, *args: object) -> object:
        labels.append(batch.gt_label.tolist())
        assert torch.equal(batch.gt_label, batch.gt_mask.flatten(1).any(1))
        return step(self, batch, *args)

    monkeypatch.setattr("anomalib.models.Supersimplenet.training_step", watch)
    monkeypatch.setattr(
        Engine, "train", lambda self, **kwargs: self.fit(kwargs["model"], datamodule=kwargs["datamodule"])
    )
    run_cli(
        "train",
        "--config",
        str(file),
        "--config",
        str(overlay),
        "--default_root_dir",
        str(tmp_path),
        *short(logger="true"),
    )
    assert any(any(row) for row in labels)


@pytest.mark.parametrize("overlays", [["stored"], ["literature", "two_stage"]], ids=["stored", "two_stage"])
@pytest.mark.parametrize("model", ["anomalib.models.Supersimplenet", "anomalib.models.Glass"])
def test_stored_overlays_train_on_kept_samples(model, overlays, parts_root, tmp_path, monkeypatch) -> None:
    from anomalib.engine import Engine

    monkeypatch.chdir(tmp_path)
    generate(parts_root / "train" / "good", out=tmp_path / "store", num_samples=6, image_size=64)
    config = yaml.safe_load(BASE.format(root=parts_root))
    if model.endswith("Supersimplenet"):
        arguments = {"supervised": True, "backbone": "efficientnet_lite0_bundled", "layers": ["blocks.2", "blocks.4"]}
        kept = {name: config["model"]["init_args"][name] for name in ("evaluator", "visualizer")}
        config["model"] = {"class_path": model, "init_args": arguments | kept}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    served = []
    monkeypatch.setattr(
        Engine, "train", lambda self, **kwargs: self.fit(kwargs["model"], datamodule=kwargs["datamodule"])
    )
    draw = StoredGenerator.__call__
    monkeypatch.setattr(
        StoredGenerator, "__call__", lambda *args, **kwargs: served.append(draw(*args, **kwargs)) or served[-1]
    )
    arguments = [
        "train", "--config", str(file), *(f"--config={CONFIGS / 'synthesis' / name}.yaml" for name in overlays),
        "--default_root_dir", str(tmp_path), *short(logger="true", limit_train_batches=4), "--seed_everything", "0",
    ]  # fmt: skip
    if model.endswith("Glass"):
        with pytest.raises(ValueError, match=r"StoredGenerator .*Give (StoredGenerator|it) `paired"):
            run_cli(*arguments)
    else:
        run_cli(*arguments)
        assert bool(torch.cat([sample.accepted for sample in served]).all())


@pytest.mark.parametrize(
    ("argument", "word"),
    [
        ("--trainer.callbacks.probabilty=0.5", "probabilty"),
        ("--trainer.callbacks.generator.init_args.strenght=[0.1,0.2]", "strenght"),
        ("--trainer.callbacks.generator.init_args.checks.init_args.min_visibilty=1", "min_visibilty"),
        ("--trainer.callbacks.generator=anomalib_synth.generators.RuleBassedGenerator", "RuleBassedGenerator"),
    ],
)
def test_typo_in_a_config_is_named_whatever_its_depth(argument, word, parts_root, tmp_path, capsys) -> None:
    base = tmp_path / "base.yaml"
    base.write_text(BASE.format(root=parts_root).split("trainer:")[0], encoding="utf-8")
    with pytest.raises(SystemExit):
        run_cli(
            "train", "--config", str(base),
            "--trainer.callbacks=anomalib_synth.callbacks.SynthesisCallback",
            "--trainer.callbacks.generator=anomalib_synth.generators.RuleBasedGenerator",
            "--trainer.callbacks.generator.init_args.checks=anomalib_synth.generators.SampleChecks",
            argument,
        )  # fmt: skip
    assert word in capsys.readouterr().err


SMALL = """
import runpy, sys
from functools import partial
from anomalib_synth.fitting import bundle, settings
from anomalib_synth.models import DiscriminativePadim
DiscriminativePadim.__init__.__kwdefaults__["scales"] = (64,)
bundle._VOCABULARY_WINDOWS, bundle._CODEBOOK_WINDOWS, bundle._SCORED_BATCHES = 64, 64, 1
settings.FitSettings = partial(settings.FitSettings, width=8, dim=16, depth=1, codebook_size=16)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_example(name: str, arguments: list[object], tmp_path: Path) -> Ended:
    """Run an example with small models."""
    script = tmp_path / "small.py"
    script.write_text(SMALL)
    ended = run_warm([script, CONFIGS.parent / "examples" / name, *arguments], cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("draw_defects.py", ["--normals", "{root}/train/good", "--out", "{out}/defects.png"]),
        ("few_real_defects.py", ["--normals", "{root}/train/good", "--defects", "{root}/test", "--out", "{out}/p.png"]),
        ("custom_generator.py", []),
        ("own_family.py", []),
        ("own_model.py", ["--root={out}/parts", "--num_train=12"]),
        ("fit_offline.py", ["--normals", "{root}/train/good", "--steps", "2", "--out", "{out}"]),
        ("quickstart.py", ["--epochs=1", "--images=12", "--image-size=96", "--results={out}"]),
        (
            "two_stages.py",
            [
                "--root",
                "{root}",
                "--normal-dir",
                "train/good",
                "--steps",
                "6",
                "--image-size",
                "128",
                "--results",
                "{out}",
            ],
        ),
        (
            "your_own_folder.py",
            [
                "--root",
                "{root}",
                "--normal-dir",
                "train/good",
                "--epochs",
                "1",
                "--image-size",
                "128",
                "--results",
                "{out}",
            ],
        ),
    ],
)
def test_example_runs(script, arguments, parts_root, tmp_path) -> None:
    filled = [argument.format(root=parts_root, out=tmp_path) for argument in arguments]
    assert run_example(script, filled, tmp_path).stdout


def test_example_calibrates_patchcore(tmp_path) -> None:
    pixels = (render_normals(28, 3, 64, 64) * 255).byte().permute(0, 2, 3, 1).numpy()
    for index, image in enumerate(pixels):
        folder = tmp_path / ("good" if index < 12 else "held_out")
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    options = ["--image-size=64", "--false-alarm-rate=0.3", "--families", "stain", f"--out={tmp_path / 'out'}"]
    run_example("calibrate_patchcore.py", [f"--root={tmp_path}", *options], tmp_path)
    written = {file.name for file in (tmp_path / "out" / "calibration").iterdir()}
    assert {"calibrated.ckpt", "recall.png", "calibration.json"} <= written

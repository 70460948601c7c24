"""How long `learn` takes, and what it changes: a detector of one category, and five images with defects that it missed.

Trains configs/train/folder.yaml with synthetic defects on the good training images, takes the test images with defects
that score lowest as missed, and learns them twice: from cold, and five others with the features there. Prints the
seconds of the command, those of the processor, which say more on a busy machine, and of the test images that were not
learned how many are found before and after. A detector that is in the folder already is taken, and forgets what it
learned.

    python benchmarks/learn.py --data DATA --category magnetic_tile --work FOLDER
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from anomalib.data import PredictDataset
from anomalib.engine import Engine
from sklearn.metrics import roc_auc_score

from anomalib_synth.calibration.checkpoints import load_model, read_checkpoint
from anomalib_synth.images import list_images

CONFIGS = Path(__file__).parents[1] / "configs"
COUNT = 5


class Seconds(NamedTuple):
    """What a command took: by the clock, and of the processor."""

    wall: float
    processor: float

    def __str__(self) -> str:
        """Both, rounded."""
        return f"{self.wall:.0f} s ({self.processor:.0f} s of the processor)"


def run(*command: str, folder: Path) -> Seconds:
    """Run a command in a folder and return what it took."""
    begin, used = time.perf_counter(), _used()
    subprocess.run(command, cwd=folder, check=True)
    return Seconds(time.perf_counter() - begin, _used() - used)


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def score(
    checkpoint: Path, config: Path, folder: Path, images: list[Path], out: Path
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scores of images, normalised, and whether they alarm."""
    module, _ = load_model(str(config), checkpoint, read_checkpoint(checkpoint))
    engine = Engine(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=out)
    dataset = PredictDataset(folder, image_size=(256, 256))
    by_path = {}
    for batch in engine.predict(module, dataset=dataset, ckpt_path=checkpoint):
        scores = zip(batch.image_path, batch.pred_score.flatten().tolist(), batch.pred_label.flatten(), strict=True)
        by_path |= {Path(path).resolve(): (value, bool(alarm)) for path, value, alarm in scores}
    found = [by_path[image.resolve()] for image in images]
    return torch.tensor([value for value, _ in found]), torch.tensor([alarm for _, alarm in found])


def main() -> None:
    """Train, learn twice, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder per category")
    parser.add_argument("--category", default="magnetic_tile")
    parser.add_argument("--work", type=Path, required=True, help="folder for the run")
    parser.add_argument("--masks", action="store_true", help="give the masks of the missed images too")
    args = parser.parse_args()
    work, root = args.work.resolve(), (args.data / args.category).resolve()
    work.mkdir(parents=True, exist_ok=True)
    train = None
    if not any((work / "results").rglob("model.ckpt")):
        train = run(
            "anomalib", "train", "--config", str(CONFIGS / "train" / "folder.yaml"),
            "--config", str(CONFIGS / "synthesis" / "rule_based.yaml"),
            f"--data.init_args.base.init_args.root={root / 'train'}", "--default_root_dir", str(work / "results"),
            folder=work,
        )  # fmt: skip
    checkpoint = next((work / "results").rglob("model.ckpt"))
    detector = checkpoint.parents[2]
    for folder in (detector / "learned", work / "missed_0", work / "missed_1"):
        shutil.rmtree(folder, ignore_errors=True)
    config = detector / "config.yaml"
    images = list_images(root / "test").paths
    defect = torch.tensor([path.parent.name != "good" for path in images])
    before, _ = score(checkpoint, config, root / "test", images, work / "scored")
    order = [place for place in before.argsort().tolist() if defect[place]]
    learned = order[: 2 * COUNT]
    for number in (0, 1):
        for place in learned[number * COUNT : (number + 1) * COUNT]:
            target = work / f"missed_{number}" / images[place].parent.name / images[place].name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(images[place], target)
            mask = root / "ground_truth" / images[place].parent.name / f"{images[place].stem}_mask.png"
            if args.masks and mask.exists():
                shutil.copy(mask, target.with_name(mask.name))
    seconds, alarms, scores = [], [], [before]
    rest = torch.tensor([place not in learned for place in range(len(images))])
    for number in (0, 1):
        command = [sys.executable, "-m", "anomalib_synth.cli", "learn", "--detector", str(detector)]
        seconds.append(run(*command, "--missed", f"missed_{number}", folder=work))
        found, alarm = score(detector / "learned" / "detector.ckpt", config, root / "test", images, work / "scored")
        scores.append(found)
        alarms.append(alarm)
    print(f"\n{args.category}, {torch.get_num_threads()} threads: training {train or 'was there'}")
    print(f"learn: {seconds[0]} from cold, {seconds[1]} with the features there (commands as a whole)")
    for name, found in zip(("before", "5 learned", "10 learned"), scores, strict=True):
        print(f"{name}: image AUROC of the other {int(rest.sum())} {roc_auc_score(defect[rest], found[rest]):.3f}")
    for name, alarm in zip(("5 learned", "10 learned"), alarms, strict=True):
        found, false = alarm[rest & defect].float().mean(), alarm[rest & ~defect].float().mean()
        print(f"{name}: finds {found:.0%} of the others with defects, alarms for {false:.0%} of the good ones")


if __name__ == "__main__":
    main()

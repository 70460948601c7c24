"""How fast is `anomalib-synth predict` against `anomalib predict`? Both on the same rendered images, in one run.

`anomalib predict` is anomalib's own Engine.predict with its PredictDataset, as its command line sets it up: an image at
a time, and a picture of each. Without pictures it is timed too. Ours writes its rows and a picture and a crop of each
defect. Loading the model is in neither time: a run on one image measures it, and is taken off.

    python benchmarks/predict.py --images 32 --size 512 --threads 2
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from anomalib.data import Folder, PredictDataset
from anomalib.engine import Engine
from anomalib.models import Padim, Patchcore
from torch.utils.data import DataLoader

import anomalib_synth  # noqa: F401  (registers the backbone)
from anomalib_synth.demo.writer import RenderPlan, render_category
from anomalib_synth.host.telemetry import without_telemetry
from anomalib_synth.images import WhitePoint
from anomalib_synth.prediction.checkpoint_detector import open_checkpoint
from anomalib_synth.prediction.exported_detector import ExportedDetector
from anomalib_synth.prediction.journal import Journal
from anomalib_synth.prediction.run import Prediction, PredictionSettings
from anomalib_synth.prediction.watching import FolderSource, StopRequest

if TYPE_CHECKING:
    from anomalib.models import AnomalibModule

    from anomalib_synth.prediction.detector import Detector

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
MODELS = {
    "padim": lambda **options: Padim(
        backbone="efficientnet_lite0_bundled", layers=["blocks.2", "blocks.4"], n_features=64, **options
    ),
    "patchcore": lambda **options: Patchcore(
        backbone="efficientnet_lite0_bundled", layers=["blocks.2", "blocks.4"], coreset_sampling_ratio=0.05, **options
    ),
}


def make_engine(folder: Path) -> Engine:
    """Return an engine that prints nothing."""
    return Engine(
        default_root_dir=folder, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, max_epochs=1
    )  # fmt: skip


def train(name: str, parts: Path, folder: Path) -> Path:
    """Train a model and return its checkpoint."""
    datamodule = Folder(
        name="part", root=parts, normal_dir="train/good", train_batch_size=8, num_workers=0,
        val_split_mode="from_train", val_split_ratio=0.25, test_split_mode="none", seed=0,
    )  # fmt: skip
    engine = make_engine(folder)
    engine.fit(MODELS[name](evaluator=False, visualizer=False), datamodule=datamodule)
    engine.trainer.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"


def time_anomalib(name: str, checkpoint: Path, images: Path, work: Path, *, draw: bool) -> float:
    """Return the seconds that Engine.predict takes."""
    dataset = PredictDataset(images)
    loader = DataLoader(dataset, collate_fn=dataset.collate_fn)
    model = MODELS[name](evaluator=False, **({} if draw else {"visualizer": False}))
    engine = make_engine(work)
    start = time.perf_counter()
    engine.predict(model, dataloaders=loader, ckpt_path=checkpoint, return_predictions=False)
    return time.perf_counter() - start


def time_ours(detector: Detector, images: Path, out: Path, batch_size: int) -> tuple[float, int]:
    """Return the seconds that a prediction takes, and how many defects it found."""
    journal = Journal(out, detector.about, WhitePoint())
    with journal.opened():
        settings = PredictionSettings(batch_size=batch_size)
        prediction = Prediction(detector, journal, settings, white_point=WhitePoint(), stop=StopRequest())
        summary = prediction.run(FolderSource(images))
    return summary.seconds, summary.counts["defect"]


def main() -> None:
    """Train a model, then time both, taking turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="padim")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--size", type=int, default=512, help="side of the images; the model sees 256")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--openvino", action="store_true", help="export and time that, too; takes a minute")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        defects = args.images // 4
        plan = RenderPlan(
            kind="printed_cap", image_size=args.size, num_train=16, num_test_good=args.images - defects,
            num_test_defect=defects, seed=0,
        )  # fmt: skip
        parts = render_category(work / "parts", plan)
        one = work / "one"
        one.mkdir()
        first = next((parts / "test").rglob("*.png"))
        (one / "a.png").write_bytes(first.read_bytes())
        with contextlib.redirect_stdout(io.StringIO()):
            checkpoint = train(args.model, parts, work)
        times = _time_all(args, checkpoint, parts / "test", one, work)
    fastest = {name: min(seconds) for name, seconds in times.items()}
    base = fastest["anomalib predict"]
    print(
        f"{args.images} images of {args.size} pixels, {args.model}, {args.threads} threads, the best of {args.repeats}"
    )
    for name, seconds in fastest.items():
        print(f"{name:<36}{args.images / seconds:8.1f} images/s  {base / seconds:5.1f} x anomalib predict")


def _time_all(
    args: argparse.Namespace, checkpoint: Path, images: Path, one: Path, work: Path
) -> dict[str, list[float]]:
    detectors: dict[str, Detector] = {
        "anomalib-synth predict": open_checkpoint(
            checkpoint, model=f"anomalib.models.{MODELS[args.model]().name}", tiler=None, accelerator="cpu"
        )
    }
    if args.openvino:
        cls: type[AnomalibModule] = type(MODELS[args.model]())
        with contextlib.redirect_stdout(io.StringIO()), without_telemetry():
            path = cls.load_from_checkpoint(checkpoint, map_location="cpu").to_openvino(work, input_size=(256, 256))
        detectors["anomalib-synth predict, OpenVINO"] = ExportedDetector(path, accelerator="cpu")
    times: dict[str, list[float]] = {}
    for repeat in range(args.repeats):
        for label, draw in (("anomalib predict", True), ("anomalib predict, no pictures", False)):
            folder = work / f"{label}{repeat}"
            loading = time_anomalib(args.model, checkpoint, one, folder, draw=draw)
            seconds = time_anomalib(args.model, checkpoint, images, folder, draw=draw)
            times.setdefault(label, []).append((seconds - loading) * args.images / (args.images - 1))
        for label, detector in detectors.items():
            loading, _ = time_ours(detector, one, work / f"{label}{repeat}one", args.batch_size)
            seconds, found = time_ours(detector, images, work / f"{label}{repeat}", args.batch_size)
            times.setdefault(label, []).append((seconds - loading) * args.images / (args.images - 1))
    print(f"ours found {found} defects")
    return times


if __name__ == "__main__":
    main()

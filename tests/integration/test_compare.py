"""`compare`: killed and resumed, with failing runs, and what it writes."""

from __future__ import annotations

import csv
import html
import json
import re
import signal
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from anomalib_synth.cli import main
from anomalib_synth.commands.compare import compare
from anomalib_synth.comparison.spec import ComparisonSpec
from anomalib_synth.comparison.trial import run_trial
from anomalib_synth.demo.writer import RenderPlan, render_category
from anomalib_synth.engines.isolated_tasks import IsolatedTask, TaskEvent
from tests.warm_python import WarmPython

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs" / "compare").glob("*.yaml"))
PADIM = {
    "class_path": "anomalib.models.Padim",
    "init_args": {"backbone": "efficientnet_lite0_bundled", "layers": ["blocks.2"], "n_features": 8},
    "normalise": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}
EVIL = "<script>alert(1)</script> $x^2$ |"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered parts, few and small."""
    root = tmp_path_factory.mktemp("demo")
    plan = RenderPlan(kind="printed_cap", image_size=96, num_train=16, num_test_good=4, num_test_defect=4, seed=0)
    render_category(root, plan)
    return root


def make_settings(demo: Path, marker: Path, **changes: Any) -> dict[str, Any]:
    """A comparison of a fast model with itself; the second arm fails with seed 0 until there is a marker."""
    fails = {"class_path": "tests.integration.compare_parts.FailsWithout", "init_args": {"file": str(marker)}}
    part = {
        "class_path": "anomalib_synth.data.DemoParts",
        "init_args": {
            "root": str(demo), "category": "printed_cap", "image_size": 96, "num_train": 16, "num_test_good": 4,
            "num_test_defect": 4, "train_batch_size": 4, "eval_batch_size": 4, "val_split_mode": "from_train",
            "val_split_ratio": 0.4, "seed": 0,
        },
    }  # fmt: skip
    settings = {
        "models": {"padim": PADIM}, "synthesis": {"none": [], "other": [fails]}, "data": {"cap": part},
        "arms": [["padim", "none"], ["padim", "other"]], "baseline": ["padim", "none"], "seeds": [0, 1], "steps": 2,
        "image_size": 64, "false_alarm_rate": 0.3, "accelerator": "cpu", "threads": 1,
    }  # fmt: skip
    return {**settings, **changes}


def run_here(function: Any, tasks: Sequence[IsolatedTask], **_: Any) -> Iterator[TaskEvent]:
    """Run tasks in this process: what a fresh one adds is tested with `run_isolated` itself."""
    for task in tasks:
        yield TaskEvent(kind="started", task=task)
        try:
            yield TaskEvent(kind="done", task=task, row=function(task.payload))
        except ValueError as error:
            yield TaskEvent(kind="failed", task=task, error=str(error))


def read_rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]


class Tags(HTMLParser):
    """Collects the tags of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep a tag."""
        self.found.append((tag, dict(attrs)))


def children_of(process: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def is_running(process: int) -> bool:
    """Whether a process is there and is more than a record of its end."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return bool(found.stdout.strip()) and not found.stdout.strip().startswith("Z")


def test_killed_comparison_goes_on_where_it_was(demo, tmp_path, capsys, monkeypatch) -> None:
    settings = make_settings(demo, tmp_path / "marker", seeds=[1])
    config, out = tmp_path / "spec.yaml", tmp_path / "out"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = ["-m", "anomalib_synth.cli", "compare", f"--config={config}", f"--out={out}"]
    run = WarmPython(command, cwd=ROOT, environment={"PYTHONPATH": str(ROOT)})
    try:
        deadline = time.monotonic() + 600
        while not (out / "runs.jsonl").is_file() or not (out / "runs.jsonl").read_bytes().endswith(b"\n"):
            assert run.runs()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        children = children_of(run.pid)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    (first,) = read_rows(out)
    with (out / "runs.jsonl").open("ab") as file:
        file.write(b'{"half a row')
    monkeypatch.setattr("anomalib_synth.report.compare_run.run_isolated", run_here)
    compare(**settings, out=out)
    rows = read_rows(out)
    assert rows[0] == first
    assert [(row["arm"], row["seed"]) for row in rows] == [("padim (none)", 1), ("padim (other)", 1)]
    assert not (out / "work").exists()
    assert children
    deadline = time.monotonic() + 600  # one that is still importing notices when it is done
    while any(is_running(child) for child in children):
        assert time.monotonic() < deadline, "a run trains on without its parent"
        time.sleep(0.2)
    printed = capsys.readouterr().out
    assert "padim (none), cap, seed 1" not in printed  # it was not run again
    assert "padim (other) against padim (none): cannot be told" in printed
    assert {"image_auroc", "pixel_ap", "aupro", "recall", "false_alarms", "fit_seconds", "torch"} <= set(rows[1])
    # The same model with the same seed: nothing but the process may differ.
    same = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro", "recall", "false_alarms", "threshold")
    assert {name: rows[0][name] for name in same} == {name: rows[1][name] for name in same}


def test_failing_run_is_reported_and_tried_again(demo, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("anomalib_synth.report.compare_run.run_isolated", run_here)
    marker, out = tmp_path / "marker", tmp_path / "out"
    settings = make_settings(demo, marker, title=EVIL)
    settings["models"] = {EVIL: PADIM}
    settings["arms"] = [[EVIL, "none"], [EVIL, "other"]]
    settings["baseline"] = [EVIL, "none"]
    with pytest.raises(ValueError, match=r"(?s)1 of 4 runs failed; .*\(other\), cap, seed 0: the <file> is missing"):
        compare(**settings, out=out)
    assert sum("error" not in row for row in read_rows(out)) == 3
    page = (out / "index.html").read_text()
    assert "the &lt;file&gt; is missing" in page
    assert "3 of 4 runs" in page
    check_page(page)
    marker.touch()
    compare(**settings, out=out)
    assert len(read_rows(out)) == 5  # only the one that failed ran again
    check_outputs(out)
    again = [(path.name, path.read_bytes()) for path in (out / "results.csv", out / "table.md", out / "gain.svg")]
    compare(**settings, out=out)
    assert again == [(name, (out / name).read_bytes()) for name, _ in again]


def test_failing_baseline_and_missing_data_are_reported(demo, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("anomalib_synth.report.compare_run.run_isolated", run_here)
    out = tmp_path / "out"
    settings = make_settings(demo, tmp_path / "no_marker", baseline=["padim", "other"], seeds=[0])
    folder = {"name": "gone", "root": str(tmp_path / "gone"), "normal_dir": "good", "val_split_mode": "from_train"}
    gone = {"class_path": "anomalib.data.Folder", "init_args": {**folder, "seed": 0}}
    settings["data"] = {"gone": gone, **settings["data"]}
    with pytest.raises(ValueError, match=r"(?s)3 of 4 runs failed; .*gone, seed 0: .*must find its images.*is missing"):
        compare(**settings, out=out)
    assert [(row["data"], "error" in row) for row in read_rows(out)] == [
        ("gone", True), ("gone", True), ("cap", False), ("cap", True)
    ]  # fmt: skip
    assert "There is no pair of runs to compare yet" in (out / "index.html").read_text()
    assert not (out / "gain.png").exists()
    settings["data"].pop("cap")
    with pytest.raises(ValueError, match=r"`data\.gone` must find its images"):
        compare(**settings, out=tmp_path / "none")


def check_page(page: str) -> None:
    """The page needs no script and no other file, and says names as they are."""
    tags = Tags(page).found
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags}
    sources = [value for _, attributes in tags for name, value in attributes.items() if name in {"src", "srcset"}]
    assert sources
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
    assert f"<h1>{html.escape(EVIL)}</h1>" in page


def check_outputs(out: Path) -> None:
    """All files are there and agree with each other."""
    import pandas as pd

    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["arm"], row["seed"]) for row in rows] == [
        (f"{EVIL} (none)", "0"), (f"{EVIL} (other)", "0"), (f"{EVIL} (none)", "1"), (f"{EVIL} (other)", "1")
    ]  # fmt: skip
    table = pd.read_parquet(out / "results.parquet")
    assert table.image_auroc.tolist() == pytest.approx([float(row["image_auroc"]) for row in rows])
    assert set(table.optimiser_steps) == {0} or set(table.fixed_epochs) == {1}
    markdown = (out / "table.md").read_text()
    assert "no evidence of benefit" in markdown  # an arm that is the baseline under another name
    assert "| 2/2 |" in markdown
    assert re.search(r"\| \+0\.0 \(\+0\.0 to \+0\.0\) \|", markdown)
    assert "<script>" not in markdown
    page = (out / "index.html").read_text()
    assert "no evidence of benefit" in page
    check_page(page)
    for name in ("dots", "gain", "cost"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (out / f"{name}.svg").read_bytes()[:1000]
    assert yaml.safe_load((out / "spec.yaml").read_text())["steps"] == 2
    assert json.loads((out / "verdicts.json").read_text())["arms"][0]["verdict"] == "no evidence of benefit"


@pytest.mark.parametrize("model", ["RealNet", "DiscriminativePadim"])
def test_run_trains_for_the_steps_and_repeats(demo, tmp_path, model) -> None:
    draw = {
        "class_path": "anomalib_synth.callbacks.SynthesisCallback",
        "init_args": {
            "generator": {"class_path": "anomalib_synth.generators.RuleBasedGenerator"}, "grid_every_n_epochs": 0
        },
    }  # fmt: skip
    settings = make_settings(demo, tmp_path / "marker", steps=5)
    settings["models"]["ours"] = {"class_path": f"anomalib_synth.models.{model}"}
    if model == "DiscriminativePadim":
        settings["models"]["ours"]["init_args"] = {"scales": [64]}
    settings["synthesis"] = {"none": [], "rules": [draw]}
    settings["arms"] = [["padim", "none"], ["ours", "rules"]]
    names = ("accelerator", "threads")
    runtime = {name: settings.pop(name) for name in names}
    trial = ComparisonSpec(**settings).trials()[1]
    first, second = (run_trial({**trial, **runtime, "work": str(tmp_path / "work")}) for _ in range(2))
    assert (first["optimiser_steps"], first["batches"], first["fixed_epochs"]) == (5, 5, None)
    assert (first["train_images"], first["test_good"], first["test_defects"]) == (10, 4, 4)
    assert (first["threshold_normals"], first["measured_normals"]) == (3, 3)
    measured = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro", "recall", "threshold")
    assert [first[name] for name in measured] == [second[name] for name in measured]
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize("model", ["padim", "ours"])
def test_training_never_looks_at_validation_images(demo, tmp_path, model) -> None:
    settings = make_settings(demo, tmp_path / "marker", steps=4)
    settings["models"]["ours"] = {
        "class_path": "anomalib_synth.models.DiscriminativePadim", "init_args": {"scales": [64]}
    }  # fmt: skip
    settings["synthesis"]["other"] = [{"class_path": "tests.integration.compare_parts.FailsWhenValidated"}]
    settings["arms"] = [["padim", "none"], [model, "other"]]
    runtime = {name: settings.pop(name) for name in ("accelerator", "threads")}
    row = run_trial({**ComparisonSpec(**settings).trials()[1], **runtime, "work": str(tmp_path / "work")})
    assert row["measured_normals"] == 3  # they are scored when it is over


def test_second_run_into_a_folder_is_refused(demo, tmp_path) -> None:
    from anomalib_synth.store import StoreError
    from anomalib_synth.store.locking import exclusive

    out = tmp_path / "out"
    out.mkdir()
    with exclusive(out / ".lock", wait=0.0), pytest.raises(StoreError, match="Another run is writing"):
        compare(**make_settings(demo, tmp_path), out=out)


def test_there_are_presets() -> None:
    assert {file.stem for file in CONFIGS} >= {"quick", "choose", "folder", "mvtec", "visa", "btad"}


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_preset_is_sound(file, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    main(["compare", f"--config={file}", f"--out={tmp_path / 'out'}", "--dry_run=true"])
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    arms = len(settings["arms"])
    categories = sum(len(section.get("categories", [0])) for section in settings["data"].values())
    assert f"{arms * categories * len(settings['seeds'])} runs" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def read_small(name: str) -> dict[str, Any]:
    """Read a preset, for small images."""
    settings = yaml.safe_load((ROOT / "configs" / "compare" / f"{name}.yaml").read_text(encoding="utf-8"))
    for model in settings["models"].values():
        if model["class_path"].endswith("DiscriminativePadim"):
            model.setdefault("init_args", {})["scales"] = [64]
    small = 128 if "supersimplenet" in settings["models"] else 64  # which trains with no smaller ones
    return settings | {"image_size": small}


def shrink(settings: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Few small images and one step, with everything else as in the preset."""
    for section in settings["data"].values():
        section["init_args"] |= {"root": str(tmp_path / "demo"), "num_test_good": 2, "num_test_defect": 2}
        section["categories"] = section["categories"][:1]
    return {**settings, "seeds": [0], "steps": 1, "workers": 1, "threads": 1, "accelerator": "cpu"}


@pytest.mark.slow
def test_quick_preset_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("anomalib_synth.report.compare_run.run_isolated", run_here)
    settings = read_small("quick")
    settings = shrink(settings, tmp_path)
    compare(**settings, out=tmp_path / "out")
    assert {row["arm"] for row in read_rows(tmp_path / "out")} == {
        f"{model} ({synthesis})" for model, synthesis in settings["arms"]
    }


@pytest.mark.slow
def test_choose_preset_runs_on_good_images_alone(demo, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("anomalib_synth.report.compare_run.run_isolated", run_here)
    settings = read_small("choose")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "good").symlink_to(demo / "printed_cap" / "train" / "good")
    monkeypatch.chdir(tmp_path)
    settings["data"]["product"]["init_args"]["base"]["init_args"]["num_workers"] = 0
    settings |= {"seeds": [0], "threads": 1, "accelerator": "cpu"}
    compare(**settings, out=tmp_path / "out")
    assert all(0 <= row["image_auroc"] <= 1 and row["pixel_ap"] is not None for row in read_rows(tmp_path / "out"))
    page = (tmp_path / "out" / "index.html").read_text()
    assert "on synthetic defects" in page
    assert "The test defects are synthetic." in page


@pytest.mark.slow
def test_folder_preset_runs_on_a_users_images(demo, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("anomalib_synth.report.compare_run.run_isolated", run_here)
    settings = read_small("folder")
    product = tmp_path / "my_product"
    product.mkdir()
    (product / "good").symlink_to(demo / "printed_cap" / "train" / "good")
    defects = sorted(path for path in (demo / "printed_cap" / "test").iterdir() if path.name != "good")
    (product / "defects").symlink_to(defects[0])
    monkeypatch.chdir(tmp_path)
    settings["data"]["product"]["init_args"] |= {"num_workers": 0, "val_split_ratio": 0.5}
    settings |= {"seeds": [0], "steps": 2, "threads": 1, "accelerator": "cpu"}
    settings |= {"false_alarm_rate": 0.3}
    compare(**settings, out=tmp_path / "out")
    rows = read_rows(tmp_path / "out")
    assert len(rows) == len(settings["arms"])
    assert all(row["pixel_ap"] is None for row in rows)
    assert "pixel AP" not in (tmp_path / "out" / "table.md").read_text()

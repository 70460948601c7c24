"""A build, step by step; steps that are done already are not repeated."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anomalib_synth._version import __version__
from anomalib_synth.building.candidates import LABELS, LEARNS, STEPS, make_config
from anomalib_synth.building.choosing import CandidateResult, Scores, choose, score_candidate
from anomalib_synth.building.exporting import export_detector, missing_for_openvino
from anomalib_synth.building.planning import BuildPlan, make_plan
from anomalib_synth.building.preparing import Prepared, prepare
from anomalib_synth.building.settings import STRENGTHS, BuildSettings
from anomalib_synth.building.speeds import choose_threads, measure_speeds
from anomalib_synth.building.state import BuildState
from anomalib_synth.building.training import checkpoint_of, train_candidate
from anomalib_synth.calibration.kept_white_point import keep_white_point
from anomalib_synth.calibration.run import CalibrationSettings, run_calibration
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.generators.from_config import build_generator
from anomalib_synth.installation import install_extras
from anomalib_synth.learning.versions import set_learned_aside
from anomalib_synth.progress import SilentProgress
from anomalib_synth.report.calibration_files import write_calibration
from anomalib_synth.store.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anomalib_synth.building.timeline import Timeline


@dataclass(frozen=True, kw_only=True)
class Built:
    """The result of a build.

    Args:
        prepared: The images, and what is odd about them.
        plan: What was planned.
        taken: The chosen model.
        grounds: Why it was chosen, in words.
        standings: The comparison of each model with the chosen one.
        page: What the report shows of the calibration.
        exports: For each export, its file and the largest difference of its scores.
        not_exported: Why an export is missing, in words; ``""`` if none is.
        training: Seconds of training, by model.
    """

    prepared: Prepared
    plan: BuildPlan
    taken: str
    grounds: str
    standings: list[CandidateResult]
    page: dict[str, Any]
    exports: dict[str, dict[str, Any]]
    not_exported: str
    training: dict[str, float]


class Builder:
    """Runs the steps of a build.

    Args:
        settings: What is asked for.
        state: The steps that are done, with their results.
        timeline: Shows the progress.
    """

    def __init__(self, settings: BuildSettings, state: BuildState, timeline: Timeline) -> None:
        self._settings = settings
        self._state = state
        self._timeline = timeline
        self._began = time.monotonic()

    def run(self) -> Built:
        """Run the steps that are not done yet.

        Raises:
            ValueError: If an image or an argument is wrong.
        """
        import torch

        torch.set_num_threads(choose_threads())
        prepared = prepare(self._settings, self._state, self._timeline)
        plan = self._plan(prepared)
        trained = {
            name: self._train(name, prepared, plan) for name in self._settings.models if name not in plan.left_out
        }
        scores = {name: self._score(name, prepared, plan, inputs) for name, inputs in trained.items()}
        taken, grounds, standings = choose(scores, learned=bool(prepared.folders.learned))
        page, inputs = self._calibrate(taken, prepared, plan, trained[taken])
        exports, not_exported = self._export(prepared, inputs)
        return Built(
            prepared=prepared, plan=plan, taken=taken, grounds=grounds, standings=standings, page=page,
            exports=exports, not_exported=not_exported,
            training={name: self._state.seconds(f"train {name}") for name in trained},
        )  # fmt: skip

    def _do(
        self, step: str, description: str, inputs: Any, work: Callable[[], Any], files: tuple[Path, ...] = ()
    ) -> Any:
        """Return the result of a step; run it unless it was done before with the same inputs."""
        found = self._state.find(step, inputs, files)
        if found is not None:
            self._timeline.skip(step)
            return found
        self._timeline.start(step, description)
        started = time.monotonic()
        self._state.forget(step)
        result = work()
        self._state.save(step, inputs, result, seconds=time.monotonic() - started)
        self._timeline.finish()
        return result

    def _plan(self, prepared: Prepared) -> BuildPlan:
        settings = self._settings
        counts = {part: len(contents) for part, contents in prepared.contents.items() if part != "judged"}
        inputs = [  # no speeds: a plan from new measurements would have other steps, and all would be trained again
            __version__, settings.minutes, settings.models, settings.generator, settings.accelerator,
            bool(settings.exports), counts,
        ]  # fmt: skip

        def work() -> dict[str, Any]:
            return plan_build(settings, prepared, spent=time.monotonic() - self._began).to_dict()

        plan = BuildPlan(**self._do("plan", "Trying a few steps of each model", inputs, work))
        self._timeline.plan(plan.seconds)
        for name, reason in plan.left_out.items():
            self._timeline.say(f"{LABELS[name]} is left out: {reason}. Give more `minutes`.")
        if LEARNS in self._settings.models and LEARNS not in plan.left_out and plan.steps < STEPS:
            prepared.warnings.append(
                f"DiscriminativePadim trains only {plan.steps} steps in the given time; most products need {STEPS}. "
                "Give more `minutes`."
            )
        return plan

    def _train(self, name: str, prepared: Prepared, plan: BuildPlan) -> list[Any]:
        settings, folder = self._settings, self._settings.out / "candidates" / name
        config = make_config(
            name, prepared.folders, settings.generator, seed=settings.seed, accelerator=settings.accelerator,
            steps=plan.steps, coreset=plan.coreset,
        )  # fmt: skip
        inputs = [__version__, config, prepared.contents["train"], prepared.contents["validation"]]
        inputs += [prepared.contents["learned"]] if name == LEARNS else []

        def advance(share: float) -> None:
            self._timeline.advance(plan.weigh(share) if name == LEARNS else share)

        def work() -> float:
            return train_candidate(config, folder, advance=advance)

        self._do(f"train {name}", f"Training {LABELS[name]}", inputs, work, (checkpoint_of(folder),))
        return inputs

    def _score(self, name: str, prepared: Prepared, plan: BuildPlan, trained: list[Any]) -> Scores:
        settings = self._settings
        inputs = [trained, settings.generator, plan.per_choice, prepared.contents["judged"]]

        def work() -> dict[str, Any]:
            return score_candidate(
                checkpoint_of(settings.out / "candidates" / name), prepared.folders, settings.generator,
                per_choice=plan.per_choice, accelerator=settings.accelerator, seed=settings.seed,
                advance=self._timeline.advance,
            ).to_dict()  # fmt: skip

        return Scores(**self._do(f"choose {name}", f"Comparing: {LABELS[name]}", inputs, work))

    def _calibrate(
        self, name: str, prepared: Prepared, plan: BuildPlan, trained: list[Any]
    ) -> tuple[dict[str, Any], list[Any]]:
        settings, detector = self._settings, self._settings.out / "detector"
        rate = prepared.rate
        inputs = [
            trained, settings.generator, plan.per_cell, rate, settings.min_recall, prepared.contents["calibration"],
            prepared.contents["judged"],
            sorted((path.name, group) for path, group in prepared.folders.groups.items()), settings.group_by,
        ]  # fmt: skip
        kept = settings.out / "work" / "page.json"

        def work() -> bool:
            run = settings.out / "candidates" / name
            self._set_learned_aside(detector)
            (settings.out / "report.html").unlink(missing_ok=True)  # its verdict is about the old detector
            for stale in ("torch", "openvino"):
                shutil.rmtree(detector / stale, ignore_errors=True)
            calibration = run_calibration(
                checkpoint_of(run), prepared.folders.calibration, build_generator(settings.generator),
                CalibrationSettings(
                    false_alarm_rate=rate, min_recall=settings.min_recall, strengths=STRENGTHS,
                    per_cell=plan.per_cell, max_normals=10_000, batch_size=16, accelerator=settings.accelerator,
                    seed=settings.seed,
                ),
                defects=prepared.folders.defects, groups=prepared.folders.groups or None,
                whole_groups=settings.group_by is not None, progress=SilentProgress(self._timeline.advance),
            )  # fmt: skip
            detector.mkdir(parents=True, exist_ok=True)
            write_whole(detector / "config.yaml", (run / "config.yaml").read_bytes())
            keep_white_point(prepared.white_point, checkpoint=calibration.checkpoint, folder=detector)
            page = write_calibration(calibration, detector)
            write_whole(kept, json.dumps(page).encode())
            return True

        self._do("calibrate", "Setting the threshold, finding blind spots", inputs, work,
                 (detector / "calibrated.ckpt", detector / "config.yaml", kept))  # fmt: skip
        return json.loads(kept.read_text(encoding="utf-8")), inputs

    def _set_learned_aside(self, detector: Path) -> None:
        kept = set_learned_aside(detector)
        if kept is not None:
            self._timeline.say(
                f"WARNING What `learn` taught the old detector does not fit the new one; it is kept in {str(kept)!r}. "
                "To teach the new detector, give those images to `learn` again."
            )

    def _export(self, prepared: Prepared, calibrated: list[Any]) -> tuple[dict[str, dict[str, Any]], str]:
        settings, detector = self._settings, self._settings.out / "detector"
        missing = missing_for_openvino() if "openvino" in settings.exports else []
        kinds = [kind for kind in settings.exports if kind != "openvino" or not missing]
        note = ""
        if missing:
            note = (
                f"Not exported to OpenVINO, which needs {', '.join(missing)}: {install_extras('build')}, "
                "then run the same command again."
            )
        files = tuple(detector / kind / ("model.pt" if kind == "torch" else "model.xml") for kind in kinds)
        made, failed = self._do(
            "export", "Exporting", [calibrated, kinds],
            lambda: export_detector(detector, kinds, prepared.folders.validation), files,
        )  # fmt: skip
        notes = [note] if note else []
        notes += [f"Not exported to {kind}, use the checkpoint: {reason}." for kind, reason in failed.items()]
        return made, " ".join(notes)


def plan_build(settings: BuildSettings, prepared: Prepared, *, spent: float = 0.0) -> BuildPlan:
    """Measure speeds on some of the images, and divide the time."""
    generator = build_generator(settings.generator)
    families = len(generator.families) if isinstance(generator, RuleBasedGenerator) else 1
    speeds = measure_speeds(
        prepared.folders, settings.generator, learns=LEARNS in settings.models, accelerator=settings.accelerator,
        seed=settings.seed,
    )  # fmt: skip
    contents = prepared.contents
    plan = make_plan(
        speeds, settings.models, minutes=settings.minutes, train=len(contents["train"]),
        validation=len(contents["validation"]), calibration=len(contents["calibration"]),
        families=families, strengths=len(STRENGTHS),
        exports=bool(settings.exports), spent=spent,
    )  # fmt: skip
    share = plan.seconds.pop("choose")
    trained = [name for name in settings.models if name not in plan.left_out]
    plan.seconds.update({f"choose {name}": share / len(settings.models) for name in trained})
    return plan

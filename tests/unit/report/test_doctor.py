"""What `doctor` says of a machine."""

from __future__ import annotations

import json
from importlib import metadata

import pytest

from anomalib_synth.commands.doctor import doctor
from anomalib_synth.installation import find_installer, install_extras
from anomalib_synth.report import doctor as module
from anomalib_synth.report.doctor import examine, examine_packages, examine_strategies, examine_weights


def test_everything_that_must_work_works_here() -> None:
    findings = list(examine())
    assert [finding for finding in findings if finding.state == "broken"] == []
    names = {finding.name for finding in findings}
    assert {"python", "torch", "anomalib", "cpu", "AutoregressiveGenerator", "RuleBasedGenerator", "review"} <= names
    assert all(finding.remedy for finding in findings if finding.state == "optional" and finding.name != "gpu")


def test_a_package_that_is_missing_or_old_is_broken(monkeypatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "scipy":
            raise metadata.PackageNotFoundError(name)
        return "0.1" if name == "timm" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    found = {finding.name: finding for finding in examine_packages()}
    assert found["scipy"].state == found["timm"].state == "broken"
    assert found["scipy"].detail == "not installed"
    assert found["timm"].remedy.startswith(f"{find_installer()} 'timm>=")
    assert found["torch"].state == "works"


def test_an_extra_that_is_missing_is_optional(monkeypatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "uvicorn":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    review = next(finding for finding in examine_packages() if finding.name == "review")
    assert (review.state, review.remedy) == ("optional", install_extras("review"))
    assert "uvicorn" in review.detail


def test_weights_are_looked_for_in_the_hubs_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    states = {finding.name: finding.state for finding in examine_weights()}
    assert states["deepseek-community/Janus-Pro-1B"] == "optional"
    (tmp_path / "models--deepseek-community--Janus-Pro-1B" / "snapshots" / "abc").mkdir(parents=True)
    states = {finding.name: finding.state for finding in examine_weights()}
    assert states["deepseek-community/Janus-Pro-1B"] == "works"


def test_a_strategy_that_fails_is_named_and_the_command_says_so(monkeypatch, capsys) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("no bundle here")

    monkeypatch.setattr(module, "AutoregressiveGenerator", fail)
    found = {finding.name: finding for finding in examine_strategies()}
    assert found["AutoregressiveGenerator"].state == "broken"
    assert "no bundle here" in found["AutoregressiveGenerator"].detail
    assert found["RuleBasedGenerator"].state == "works"
    monkeypatch.setattr(module, "examine", lambda: iter(found.values()))
    with pytest.raises(SystemExit) as stop:
        doctor(as_json=True)
    assert stop.value.code == 1
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} == set(found)


def test_the_table_shows_every_finding(capsys) -> None:
    doctor()
    shown = capsys.readouterr().out
    assert "RuleBasedGenerator" in shown
    assert "strategies" in shown


def test_what_to_do_is_printed_in_lines_that_can_be_copied(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    broken = module.Finding(group="packages", name="scipy", state="broken", detail="", remedy="pip install " + "x" * 80)
    missing = module.Finding(group="extras", name="ray", state="optional", detail="", remedy="pip install '[ray]'")
    monkeypatch.setattr(module, "examine", lambda: iter([missing, broken]))
    with pytest.raises(SystemExit):
        doctor()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["  scipy: pip install " + "x" * 80, "  ray: pip install '[ray]'"]


def test_strategies_that_need_more_say_what(monkeypatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    found = {finding.name: finding for finding in examine_strategies()}
    assert found["FilteredGenerator"].state == found["DiffusionRetrievalGenerator"].state == "optional"
    assert found["FilteredGenerator"].remedy == install_extras("filter")
    assert "diffusers" in found["DiffusionRetrievalGenerator"].detail


def test_the_diffusion_generator_works_when_its_pipeline_is_cached(monkeypatch) -> None:
    monkeypatch.setattr(module, "_is_cached", lambda repository: repository == "timbrooks/instruct-pix2pix")
    found = {finding.name: finding for finding in examine_strategies()}
    assert found["DiffusionRetrievalGenerator"].state == "works"
    assert found["FilteredGenerator"].state == "works"
    monkeypatch.setattr(module, "_is_cached", lambda repository: False)
    found = {finding.name: finding for finding in examine_strategies()}
    assert found["DiffusionRetrievalGenerator"].remedy.startswith("anomalib-synth fit --diffusion ")

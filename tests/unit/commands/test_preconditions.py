"""What is refused before any work."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from anomalib_synth.cli import main
from anomalib_synth.commands import preconditions
from anomalib_synth.commands.preconditions import check_writable_folder, require_extra


def test_folder_is_taken_when_it_can_be_made(tmp_path) -> None:
    check_writable_folder("out", tmp_path)
    check_writable_folder("out", tmp_path / "new" / "deeper")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rest", ["", "below/it"])
def test_folder_is_refused_when_a_file_is_in_the_way(rest, tmp_path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(ValueError, match=r"`out` must be a folder, but the file '.*taken' is in the way"):
        check_writable_folder("out", tmp_path / "taken" / rest)


def test_folder_is_refused_when_it_is_a_broken_link(tmp_path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match="which is no folder"):
        check_writable_folder("out", tmp_path / "link" / "x")


def test_folder_is_refused_when_it_may_not_be_written(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match=r"cannot\. Name another one"):
        check_writable_folder("out", tmp_path / "new")


def test_extra_is_named_when_a_library_is_missing(monkeypatch) -> None:
    require_extra("fit", "fit", "json")
    with pytest.raises(ValueError, match=r"`fit` needs no_such, .*pip install .*\[fit\]'"):
        require_extra("fit", "fit", "json", "no_such")


@pytest.mark.parametrize(
    "command",
    [
        "generate --normals={normals} --out={out} --dry-run",
        "fit --normals={normals} --out={out} --dry-run",
        "filter --store={normals} --normals={normals} --out={out} --dry-run",
        "compare --config quick --out={out} --dry-run",
        "convert --images={normals} --out={out}",
        "export --store={normals} --out={out}",
        "preview --normals={normals} --out={out}/picture.png",
        "calibrate --checkpoint={normals} --normals={normals} --out={out}",
    ],
)
def test_output_is_looked_at_first_when_the_run_is_dry(command, parts_root, tmp_path) -> None:
    (tmp_path / "file").touch()
    arguments = command.format(normals=parts_root / "train" / "good", out=tmp_path / "file").split()
    with pytest.raises(SystemExit, match="is in the way of"):
        main(arguments)


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("fit --normals={normals} --out={out} --dry-run", "faiss"),
        ("fit --normals={normals} --out={out} --dry-run --diffusion", "diffusers"),
        ("filter --store={normals} --normals={normals} --dry-run", "faiss"),
        ("compare --config quick --out={out} --dry-run", "pyarrow"),
    ],
)
def test_extra_is_asked_for_first_when_the_run_is_dry(command, module, parts_root, tmp_path, monkeypatch) -> None:
    there = preconditions.find_spec
    monkeypatch.setattr(preconditions, "find_spec", lambda name: None if name == module else there(name))
    with pytest.raises(SystemExit, match=f"needs {module}, not installed here"):
        main(command.format(normals=parts_root / "train" / "good", out=tmp_path / "out").split())


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("preview", {"normals": "in", "out": "in/preview.png"}),
        ("calibrate", {"checkpoint": "x.ckpt", "normals": "in", "out": "in/results"}),
        ("calibrate", {"checkpoint": "x.ckpt", "normals": "other", "defects": "in", "out": "in"}),
        ("calibrate", {"checkpoint": "x.ckpt", "normals": "other", "train_normals": "in", "out": "in/x"}),
        ("predict", {"detector": "x.ckpt", "images": "in", "out": "in/x"}),
        ("predict", {"detector": "x.ckpt", "images": "out/pictures", "out": "out"}),
        ("predict", {"detector": "x.ckpt", "images": "out/crops/day1", "out": "out"}),
    ],
)
def test_out_is_refused_when_it_would_mix_with_the_images(command, options, tmp_path) -> None:
    given = [word for name, value in options.items() for word in (f"--{name}", str(tmp_path / value))]
    for name, value in options.items():
        if name not in {"out", "detector", "checkpoint"}:
            (tmp_path / value).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit, match=r"must lie outside"):
        main([command, *given])
    assert sorted(tmp_path.rglob("*")) == before


def test_page_is_written_among_the_images_when_it_is_no_image(tmp_path) -> None:
    with pytest.raises(SystemExit, match=r"`normals` must be a folder with images"):
        main(["preview", "--normals", str(tmp_path), "--out", str(tmp_path / "preview.html")])


LIGHT = """
import sys
from anomalib_synth.cli import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    print(stop.code, "torch" in sys.modules, "anomalib" in sys.modules)
"""


def run_apart(*given: str) -> str:
    """Run a command in a process of its own; return its error, and whether torch and anomalib were imported."""
    done = subprocess.run([sys.executable, "-c", LIGHT, *given], capture_output=True, text=True, check=True)
    return done.stdout.rstrip()


@pytest.mark.parametrize("command", ["build --normals", "predict --detector there --images", "preview --normals"])
def test_folder_that_is_not_there_is_refused_before_anything_heavy_is_imported(command, tmp_path) -> None:
    said = run_apart(*command.split(), str(tmp_path / "nowhere"), "--out", str(tmp_path / "out"))
    assert "must be a folder with images, got " in said
    assert said.endswith("False False")


def test_model_that_is_misspelt_is_refused_before_anything_heavy_is_imported(tmp_path) -> None:
    said = run_apart("build", "--normals", str(tmp_path), "--out", str(tmp_path / "out"), "--models", "[patchcor]")
    assert "`models` must name some of discriminative_padim, patchcore, padim, got ['patchcor']" in said
    assert said.endswith("False False")

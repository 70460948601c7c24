"""How the command line is read, and that reading it is cheap."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from anomalib_synth.cli import COMMANDS, load, main
from anomalib_synth.commands.arguments import parse_arguments


def command(
    normals: Path,
    *,
    out: Path = Path("out"),
    num_samples: int = 3,
    dry_run: bool = False,
    resume: bool = True,
    models: dict[str, dict] | None = None,
    kinds: list[str] = ["a"],  # noqa: B006
    strengths: tuple[float, ...] = (1.0,),
    seeds: list[int] = [0],  # noqa: B006
) -> None:
    """Do something.

    Args:
        normals: Folder.
        out: Folder.
        num_samples: Number.
        dry_run: Switch.
        resume: Switch.
        models: By name.
        kinds: Words.
        strengths: Numbers.
        seeds: Whole numbers.
    """


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        (["--num-samples", "5"], {"num_samples": 5}),
        (["--num_samples=5"], {"num_samples": 5}),
        (["--dry-run"], {"dry_run": True}),
        (["--dry_run", "--num-samples=4"], {"dry_run": True, "num_samples": 4}),
        (["--dry-run", "true"], {"dry_run": True}),
        (["--resume=false"], {"resume": False}),
        (["--resume", "false", "--dry-run"], {"resume": False, "dry_run": True}),
        (["--kinds", "b"], {"kinds": ["b"]}),
        (["--kinds", "b,c d", "--seeds=3"], {"kinds": ["b", "c d"], "seeds": [3]}),
        (["--kinds=[b, c]", "--seeds", "1, 2"], {"kinds": ["b", "c"], "seeds": [1, 2]}),
        (["--kinds", "[]", "--strengths", "0.5,1"], {"kinds": [], "strengths": (0.5, 1.0)}),
        (["--kinds", "1,true"], {"kinds": ["1", "true"]}),
        (["--models.my-net", "{a-b: 1}"], {"models": {"my-net": {"a-b": 1}}}),
    ],
)
def test_options_are_read_when_written_either_way(given, changed) -> None:
    found = parse_arguments(command, "command", ["--normals", "parts", *given])
    usual = {"normals": Path("parts"), "out": Path("out"), "num_samples": 3, "dry_run": False, "resume": True}
    lists = {"models": None, "kinds": ["a"], "strengths": (1.0,), "seeds": [0]}
    assert found == {**usual, **lists, **changed}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--normals=x", "--num-smples=5"], "there is no option `--num-smples`. Did you mean 'num_samples'?"),
        (["--normals=x", "--zzz"], "there is no option `--zzz`."),
        (["--normals=x", "--out"], "`--out` must have a value"),
        (["--normals", "--out=x"], "`--normals` must have a value"),
        (["parts"], "'parts' belongs to no option"),
        (["--out=x"], "`--normals` must be given"),
        (["--normals=x", "--num_samples=many"], "num_samples"),
    ],
)
def test_status_is_two_when_arguments_are_wrong(given, message, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_arguments(command, "command", given)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_similar_command_is_suggested_when_it_is_misspelt(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["genrate", "--out=x"])
    assert stop.value.code == 2
    assert "Did you mean 'generate'?" in capsys.readouterr().err


def test_every_command_is_listed_when_none_is_named(capsys) -> None:
    main([])
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in COMMANDS)
    main(["--version"])
    assert capsys.readouterr().out.startswith("anomalib-synth ")


def test_nothing_heavy_is_imported_when_help_or_errors_are_printed() -> None:
    code = f"""
import contextlib, io, sys
from anomalib_synth.cli import main
for arguments in {[["--help"], ["--version"], ["nothing"], *([name, "--help"] for name in COMMANDS), ["generate"]]!r}:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main(arguments)
heavy = {{"torch", "numpy", "anomalib", "lightning", "timm", "PIL", "pandas"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_says_what_is_true_when_it_is_interrupted(name, monkeypatch, capsys) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("anomalib_synth.commands.arguments.parse_arguments", stop)
    with pytest.raises(SystemExit) as stopped:
        main([name])
    assert stopped.value.code == 130
    assert f"stopped. {COMMANDS[name].stopped}" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained_when_help_is_asked_for(name) -> None:
    function = load(name)
    text = function.__doc__ or ""
    options = list(function.__code__.co_varnames[: function.__code__.co_argcount + function.__code__.co_kwonlyargcount])
    assert [option for option in options if f"        {option}: " not in text] == []


def test_generator_is_read_from_file_and_command_line_when_both_are_given(tmp_path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        "out: kept\ngenerator: {class_path: RuleBasedGenerator, init_args: {families: [stain, scratch]}}\n"
    )
    found = parse_arguments(
        load("generate"), "generate", ["--config", str(config), "--generator.families=[scratch]", "--normals=parts"]
    )
    assert found["generator"].families == {"scratch": 1.0}
    assert found["out"] == Path("kept")


def test_generator_names_its_options_when_asked(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["generate", "--generator.help", "RuleBasedGenerator"])
    assert stop.value.code == 0
    assert "families" in capsys.readouterr().out


class OutOfMemoryError(RuntimeError):
    """As torch has it."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_command_ends_with_one_line_when_there_is_no_memory_left(error, monkeypatch) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr("anomalib_synth.cli.load", lambda name: fail)
    monkeypatch.setattr("anomalib_synth.commands.arguments.parse_arguments", lambda *_: {})
    with pytest.raises(SystemExit, match=r"^anomalib-synth: there is not enough memory \(.+\)"):
        main(["build"])


def test_command_ends_with_one_line_when_torchvision_is_of_another_build_than_torch(monkeypatch) -> None:
    def fail(**_: object) -> None:
        msg = "operator torchvision::nms does not exist"
        raise RuntimeError(msg)

    monkeypatch.setattr("anomalib_synth.cli.load", lambda name: fail)
    monkeypatch.setattr("anomalib_synth.commands.arguments.parse_arguments", lambda *_: {})
    said = r"^anomalib-synth: torch and torchvision do not fit together \(torch [0-9.]+.*--force-reinstall"
    with pytest.raises(SystemExit, match=said):
        main(["doctor"])


def test_fault_of_ours_is_not_hidden_when_it_is_no_lack_of_memory(monkeypatch) -> None:
    def fail(**_: object) -> None:
        msg = "a fault"
        raise RuntimeError(msg)

    monkeypatch.setattr("anomalib_synth.cli.load", lambda name: fail)
    monkeypatch.setattr("anomalib_synth.commands.arguments.parse_arguments", lambda *_: {})
    with pytest.raises(RuntimeError, match="a fault"):
        main(["build"])


def test_command_goes_on_when_the_terminal_cannot_show_a_name(tmp_path, monkeypatch) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii", write_through=True))
    main(["configs", "--name", "train/quickstart", "--copy", str(tmp_path / "größe")])
    assert b"gr\\xf6\\xdfe" in shown.getvalue()

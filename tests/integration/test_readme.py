"""What README and the configs' comments tell people to type exists: commands, options, files."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from anomalib_synth.cli import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = [file.read_text(encoding="utf-8") for file in sorted((ROOT / "docs").glob("*.md"))]
PAGES = [README, *DOCS, *(file.read_text(encoding="utf-8") for file in sorted((ROOT / "configs").rglob("*.yaml")))]
FILE = re.compile(r"(?<![\w/.])(?:configs|examples|benchmarks|docs|tests)/[\w/.{},-]*\w")


def find_commands(text: str, program: str) -> list[str]:
    """Return the commands of a program: lines of a code block or of a comment, and inline code."""
    joined = re.sub(r"\\\n[# ]*", "", text)
    lines = re.findall(rf"^[# ]*({program} [^\n]*)$", joined, flags=re.MULTILINE)
    inline = [" ".join(found.split()) for found in re.findall(rf"`({program} [^`]*)`", joined)]
    return [re.sub(r" #.*| {2,}.*", "", line).replace("[", "").replace("]", "") for line in lines + inline]


COMMANDS = sorted({command for page in PAGES for command in find_commands(page, "anomalib-synth")})
SCRIPTS = sorted(
    {command for page in (README, *DOCS) for command in find_commands(page, "python") if "benchmarks/" in command}
)


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 15
    assert len(SCRIPTS) > 10


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_understood(command, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "drawn.yaml").write_text(re.search(r"# drawn.yaml\n(.*?)```", README, flags=re.DOTALL).group(1))
    subcommand, *options = shlex.split(command.replace("...", "x"))[1:]
    with pytest.raises(SystemExit) as ended:
        main([subcommand, *options, "--print_config" if options or subcommand != "families" else "--help"])
    assert ended.value.code in {0, None}, capsys.readouterr().err


@pytest.mark.parametrize("command", SCRIPTS)
def test_option_of_a_benchmark_exists(command) -> None:
    _, script, *words = shlex.split(command)
    source = (ROOT / script).read_text(encoding="utf-8")
    for word in words:
        if word.startswith("--"):
            assert f'"{word}"' in source, f"{script} has no {word}"


def test_file_that_is_named_exists() -> None:
    named = {found for page in PAGES for found in FILE.findall(page)}
    expanded = set()
    for name in named:
        start, braces, rest = name.partition("{")
        choices = rest.split("}")[0].split(",") if braces else [""]
        expanded |= {start + choice + rest.partition("}")[2] for choice in choices}
    missing = {name for name in expanded if not (ROOT / name).exists()}
    assert len(expanded) > 40
    assert not missing

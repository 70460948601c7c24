"""What README, the documentation and the configs' comments tell people to type exists: commands, options, files."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from anomalib_synth.cli import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = [file.read_text(encoding="utf-8") for file in sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [README, *DOCS, *(file.read_text(encoding="utf-8") for file in sorted((ROOT / "configs").rglob("*.yaml")))]
FILE = re.compile(r"(?<![\w/.])(?:configs|examples|benchmarks|docs|tests)/[\w/.{},-]*\w")
DRAWN = next(found.group(1) for page in PAGES if (found := re.search(r"# drawn.yaml\n(.*?)```", page, re.DOTALL)))
WITHIN = sorted({found for page in PAGES for found in re.findall(r"\$\([\w./]*anomalib-synth ([^)]*)\)", page)})


def find_commands(text: str, program: str, first: str = "") -> list[str]:
    """Return the commands of a program: lines of a code block or of a comment, and inline code.

    Args:
        text: Where they stand.
        program: Its name.
        first: Pattern that what comes after its name fits.
    """
    joined = re.sub(r"\\\n[# ]*", "", text)
    lines = re.findall(rf"^[# ]*({program} {first}[^\n]*)$", joined, flags=re.MULTILINE)
    inline = [" ".join(found.split()) for found in re.findall(rf"`({program} {first}[^`]*)`", joined)]
    return [re.sub(r" #.*| {2,}.*", "", line).replace("[", "").replace("]", "") for line in lines + inline]


COMMANDS = sorted({command for page in PAGES for command in find_commands(page, "anomalib-synth", r"(?=[a-z])")})
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
    (tmp_path / "drawn.yaml").write_text(DRAWN)
    subcommand, *options = shlex.split(command.replace("...", "x"))[1:]
    with pytest.raises(SystemExit) as ended:
        main([subcommand, *options, "--print_config" if options or subcommand != "families" else "--help"])
    assert ended.value.code in {0, None}, capsys.readouterr().err


@pytest.mark.parametrize("command", WITHIN)
def test_file_that_a_command_within_another_prints_exists(command, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    main(shlex.split(command))
    assert Path(capsys.readouterr().out.strip()).is_file()


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_figures_of_the_readme_are_those_of_the_results() -> None:
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    section = README.partition("\n## Results\n")[2].partition("\n## ")[0]
    means = [f"| {image}; {pixel} |" for image, pixel in re.findall(r"\| (\.\d+) \| (\.\d+) \|", section)]
    gains = re.findall(r"\([-+]\S+ to [-+]\S+\)", section)
    assert (len(means), len(gains)) == (6, 2)
    assert [figure for figure in means + gains if figure not in results] == []


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.stem
)
def test_link_leads_somewhere_when_it_is_read_in_the_repository(page) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        if name.startswith(("http:", "https:")):
            continue
        file = (page.parent / name) if name else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in find_anchors(file), f"{page.name}: {target}"


def find_anchors(file: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    text = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = [heading.lower() for heading in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


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

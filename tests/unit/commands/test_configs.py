"""Configurations by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomalib_synth.cli import main
from anomalib_synth.commands.configs import configs_folder, find_config, list_configs

ROOT = Path(__file__).parents[3]


def test_every_configuration_is_listed_with_what_it_does(capsys) -> None:
    main(["configs"])
    lines = capsys.readouterr().out.splitlines()
    files = sorted((ROOT / "configs").rglob("*.yaml"))
    assert [line.split()[0] for line in lines] == [
        file.relative_to(ROOT / "configs").with_suffix("").as_posix() for file in files
    ]
    assert all(len(line.split()) > 3 for line in lines)
    assert all(line.endswith(".") for line in lines)  # whole sentences
    assert sum(line.count(". ") for line in lines) == 0


def test_list_fits_the_terminal_when_it_goes_to_one(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    main(["configs"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len([line for line in lines if not line.startswith(" ")]) == len(list_configs())


@pytest.mark.parametrize("name", ["train/quickstart", "quickstart", "quickstart.yaml", "configs/train/quickstart.yaml"])
def test_configuration_is_found_when_it_is_named_in_part(name, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == configs_folder() / "train" / "quickstart.yaml"


def test_own_file_goes_first_when_it_has_the_name_of_one_of_ours(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart.yaml").touch()
    assert find_config("quickstart.yaml") == Path("quickstart.yaml")


@pytest.mark.parametrize(
    ("name", "message"), [("quickstrat", "Did you mean"), ("folder", "may be compare/folder or train/folder")]
)
def test_name_is_refused_when_it_is_none_or_two(name, message) -> None:
    with pytest.raises(ValueError, match=message):
        find_config(name)


def test_shown_configuration_is_the_file_when_it_is_named(capsys) -> None:
    main(["configs", "--name", "train/quickstart", "--show"])
    assert capsys.readouterr().out == (ROOT / "configs/train/quickstart.yaml").read_text(encoding="utf-8")
    main(["configs", "--name", "train/quickstart", "--where"])
    assert Path(capsys.readouterr().out.strip()).is_file()


def test_copies_are_kept_when_they_were_changed(tmp_path) -> None:
    main(["configs", "--copy", str(tmp_path)])
    copies = {path.relative_to(tmp_path).with_suffix("").as_posix() for path in tmp_path.rglob("*.yaml")}
    assert copies == set(list_configs())
    changed = tmp_path / "train" / "quickstart.yaml"
    changed.write_text("mine: 1\n")
    with pytest.raises(SystemExit, match="would replace"):
        main(["configs", "--copy", str(tmp_path)])
    assert changed.read_text() == "mine: 1\n"
    main(["configs", "--copy", str(tmp_path), "--overwrite"])
    assert changed.read_text() != "mine: 1\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--show"], "`name` must be given with `show`"),
        (["--show", "--where", "--name=quickstart"], "Give one of"),
        (["--overwrite"], "`overwrite` has an effect only with `copy`"),
    ],
)
def test_arguments_are_refused_when_they_contradict(arguments, message) -> None:
    with pytest.raises(SystemExit, match=message):
        main(["configs", *arguments])

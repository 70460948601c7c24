"""The commands that are advised, by how the package was installed."""

from __future__ import annotations

import json
import shlex
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from anomalib_synth import installation
from anomalib_synth.installation import find_installer, install_extras, install_package, reinstall

ROOT = Path(__file__).parents[2]


class Installed:
    """A distribution with the files that an installer writes."""

    def __init__(self, *, url: str = "", installer: str = "pip", **info: object) -> None:
        self.files = {"INSTALLER": installer}
        if url:
            self.files["direct_url.json"] = json.dumps({"url": url, **info})

    def read_text(self, name: str) -> str | None:
        return self.files.get(name)


@pytest.fixture
def install(monkeypatch):
    """Return a function that sets how the package was installed, with pip on the path."""
    monkeypatch.setattr(installation.shutil, "which", lambda name: str(Path(sys.prefix) / "bin" / name))
    return lambda **how: monkeypatch.setattr(metadata, "distribution", lambda name: Installed(**how))


def test_checkout_is_named_when_it_is_editable(install, tmp_path, monkeypatch) -> None:
    install(url=tmp_path.as_uri(), dir_info={"editable": True})
    assert shlex.split(install_extras("review")) == ["pip", "install", "-e", f"{tmp_path}[review]"]
    assert shlex.split(reinstall())[-2:] == ["-e", str(tmp_path)]
    monkeypatch.chdir(tmp_path)
    assert install_extras("review", "filter") == "pip install -e '.[review,filter]'"


def test_folder_is_quoted_when_its_name_has_a_blank(install, tmp_path) -> None:
    folder = tmp_path / "my parts' code"
    install(url=folder.as_uri(), dir_info={"editable": True})
    assert shlex.split(install_extras("fit"))[-1] == f"{folder}[fit]"


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"url": "file:///srv/anomalib_synth-0.2.0-py3-none-any.whl", "archive_info": {}},
        {"url": "file:///srv/checkout", "dir_info": {}},
        {"url": "https://example.com/anomalib-synth.git", "vcs_info": {"vcs": "git"}},
        {"url": "https://example.com/checkout", "dir_info": {"editable": True}},
    ],
)
def test_name_is_used_when_it_is_no_editable_checkout(install, how) -> None:
    install(**how)
    assert install_extras("review") == "pip install 'anomalib-synth[review]'"


def test_name_is_used_when_the_record_is_damaged(install, monkeypatch) -> None:
    for text in ("{", "[]", '{"url": 5}', '{"dir_info": []}'):
        install()
        damaged = metadata.distribution("anomalib-synth")
        damaged.files["direct_url.json"] = text
        monkeypatch.setattr(metadata, "distribution", lambda name, damaged=damaged: damaged)
        assert install_extras("review") == "pip install 'anomalib-synth[review]'"


def test_wheel_is_put_in_place_again_from_its_file_when_it_is_there(install, tmp_path) -> None:
    wheel = tmp_path / "anomalib_synth-0.2.0-py3-none-any.whl"
    install(url=wheel.as_uri(), archive_info={})
    assert reinstall().endswith("--no-deps anomalib-synth")
    wheel.touch()
    assert reinstall().endswith(f"--no-deps {wheel}")


def test_this_environments_pip_is_named_when_another_is_on_the_path(install, monkeypatch) -> None:
    install()
    for found in (None, "/usr/bin/pip"):
        monkeypatch.setattr(installation.shutil, "which", lambda name, found=found: found)
        monkeypatch.setattr(sys, "executable", "/opt/my env/bin/python")
        monkeypatch.setattr(sys, "prefix", "/opt/my env")
        assert install_package("timm>=1.0") == "'/opt/my env/bin/python' -m pip install 'timm>=1.0'"


def test_uv_is_named_when_it_installed_the_package(install) -> None:
    install(installer="uv\n")
    assert find_installer() == "uv pip install"


def test_quotes_are_those_of_the_system_when_it_is_windows(monkeypatch) -> None:
    monkeypatch.setattr(installation.os, "name", "nt")
    assert installation.quote("anomalib-synth[fit]") == '"anomalib-synth[fit]"'


def test_all_holds_every_extra_when_one_is_added() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (named,) = extras["all"]
    assert set(named.partition("[")[2].rstrip("]").split(",")) == set(extras) - {"all", "docs", "mutation", "test"}

"""How this package was installed, and the commands that add to it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

DISTRIBUTION = "anomalib-synth"
CPU_TORCH = "https://download.pytorch.org/whl/cpu"  # the index of torch's wheels for the CPU


def install_extras(*extras: str) -> str:
    """Return the command that installs extras, as it works for how this package was installed.

    An editable checkout is named by its folder; a wheel, a folder or the registry's package is named by what is there
    already, so pip asks nobody for it and fetches the extra libraries alone.

    Args:
        extras: Their names.
    """
    checkout, editable = _find_source()
    names = ",".join(extras)
    if editable and checkout is not None:
        return f"{find_installer()} -e {quote(f'{_shorten(checkout)}[{names}]')}"
    return f"{find_installer()} {quote(f'{DISTRIBUTION}[{names}]')}"


def install_package(requirement: str) -> str:
    """Return the command that installs another package.

    Args:
        requirement: Its name, with bounds of its version if need be.
    """
    return f"{find_installer()} {quote(requirement)}"


def reinstall() -> str:
    """Return the command that puts this package's own files in place again, from where they came."""
    source, editable = _find_source()
    command = f"{find_installer()} --force-reinstall --no-deps"
    if editable and source is not None:
        return f"{command} -e {quote(_shorten(source))}"
    if source is not None and source.exists():
        return f"{command} {quote(str(source))}"
    return f"{command} {DISTRIBUTION}"


def explain_misfit(error: Exception) -> str:
    """Return what to do where torchvision was built for another torch than the one that is there, else ``""``.

    One for the CPU beside one for CUDA is the usual case: pip sees no conflict, and each import of torchvision fails.

    Args:
        error: What was raised.
    """
    if "operator torchvision::" not in str(error):
        return ""
    found = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "torchvision"))
    return (
        f"torch and torchvision do not fit together ({found}): they are of different builds. Install both from one "
        f"place, such as `{find_installer()} --force-reinstall torch torchvision`, for the CPU with `--index-url "
        f"{CPU_TORCH}`."
    )


def find_installer() -> str:
    """Return the command that installs into this very environment: `pip install` where that is the one on the path."""
    try:
        installer = metadata.distribution(DISTRIBUTION).read_text("INSTALLER") or ""
    except metadata.PackageNotFoundError:
        installer = ""
    if installer.strip() == "uv":
        return "uv pip install"
    found = shutil.which("pip")
    if found is not None and Path(os.path.abspath(found)).is_relative_to(sys.prefix):  # noqa: PTH100  (no links followed)
        return "pip install"
    return f"{quote(sys.executable)} -m pip install"


def quote(text: str) -> str:
    """Return a word that the shell of this system leaves as it is; brackets too, which some take for patterns."""
    if os.name == "nt":
        return f'"{text}"'
    return shlex.quote(text)


def _find_source() -> tuple[Path | None, bool]:
    """Return the folder or file that this package was installed from, and whether it is used from there."""
    try:
        text = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
        found = json.loads(text) if text else {}
        address = urlsplit(found.get("url", ""))
        editable = bool(found.get("dir_info", {}).get("editable", False))
    except (metadata.PackageNotFoundError, ValueError, AttributeError, TypeError):
        return None, False
    if address.scheme != "file":
        return None, False
    return Path(url2pathname(address.path)), editable


def _shorten(folder: Path) -> str:
    """Return `.` for the folder that commands are typed in."""
    return "." if folder.resolve() == Path.cwd().resolve() else str(folder)

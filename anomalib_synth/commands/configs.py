"""The command `anomalib-synth configs`: the configurations that come with the package."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from itertools import takewhile
from pathlib import Path

from anomalib_synth.commands.suggestions import suggest_names

_PACKAGE = Path(__file__).parents[1]


def configs(
    *,
    name: str | None = None,
    show: bool = False,
    copy: Path | None = None,
    where: bool = False,
    overwrite: bool = False,
) -> None:
    """List the configurations that come with the package, show one, or copy them so that you can change them.

    Args:
        name: The configuration to show or to copy, such as train/quickstart; by default all of them.
        show: Print the configuration.
        copy: Folder to copy to.
        where: Print the path of the file, for `anomalib train --config`.
        overwrite: Replace files of the same name that differ.

    Raises:
        ValueError: If there is no such configuration, or files would be replaced.
    """
    if sum([show, where, copy is not None]) > 1:
        msg = "Give one of `show`, `where` and `copy`."
        raise ValueError(msg)
    if (show or where) and name is None:
        msg = f"`name` must be given with `{'show' if show else 'where'}`, such as train/quickstart."
        raise ValueError(msg)
    if overwrite and copy is None:
        msg = "`overwrite` has an effect only with `copy`. Leave it out."
        raise ValueError(msg)
    chosen = list_configs() if name is None else {name: find_config(name)}
    if copy is not None:
        _copy(chosen, copy, overwrite=overwrite)
    elif show:
        print(next(iter(chosen.values())).read_text(encoding="utf-8"), end="")
    elif where:
        print(next(iter(chosen.values())))
    else:
        width = max(map(len, chosen))
        for each, path in chosen.items():
            print(_wrap(f"{each:<{width}}  {describe_config(path)}", indent=width + 2))


def configs_folder() -> Path:
    """Return the folder of the configurations: in the installed package, or beside it in a checkout."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def list_configs() -> dict[str, Path]:
    """Return the files by name, such as train/quickstart."""
    folder = configs_folder()
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def find_config(name: str) -> Path:
    """Return the file of a path, or of the name of a configuration that comes with the package.

    Raises:
        ValueError: If it is neither, or several configurations have that name.
    """
    if Path(name).is_file():
        return Path(name)
    known = list_configs()
    wanted = name.removesuffix(".yaml").removeprefix("configs/")
    found = [each for each in known if wanted == each or wanted == each.rpartition("/")[2]]
    if len(found) == 1:
        return known[found[0]]
    if found:
        msg = f"`config` {name!r} may be {' or '.join(found)}. Name one of them."
        raise ValueError(msg)
    msg = f"`config` must be a file or one of `anomalib-synth configs`, got {name!r}.{suggest_names(wanted, known)}"
    raise ValueError(msg)


def describe_config(path: Path) -> str:
    """Return the first sentence of the comment at the beginning of a configuration."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    comment = " ".join(line.strip("# ") for line in lines)
    return re.split(r"(?<=[.])\s", comment, maxsplit=1)[0]


def _wrap(text: str, *, indent: int) -> str:
    """Return a line wrapped to the terminal; unwrapped if the output is not a terminal."""
    if not sys.stdout.isatty():
        return text
    return textwrap.fill(text, max(indent + 20, shutil.get_terminal_size().columns), subsequent_indent=" " * indent)


def _copy(chosen: dict[str, Path], out: Path, *, overwrite: bool) -> None:
    targets = {path: out / f"{name}.yaml" for name, path in chosen.items()}
    taken = [str(new) for old, new in targets.items() if new.exists() and new.read_bytes() != old.read_bytes()]
    if taken and not overwrite:
        msg = f"`copy` would replace {', '.join(taken[:3])}, which differ. Name another folder, or give --overwrite."
        raise ValueError(msg)
    for old, new in targets.items():
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(old.read_bytes())
        print(new)

"""Does this package change anything in an environment that has anomalib? `pip freeze` before and after.

    python scripts/check_install.py                          in a new environment: minutes, gigabytes
    python scripts/check_install.py --venv .venv --extras all   in one that is there (it is installed into it)

Builds a wheel of this checkout, installs it, prints every line that came, went or changed, and ends with status 1 if
one that was there went or changed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
OWN = "anomalib-synth"


def pip(python: Path, *arguments: str) -> list[str]:
    """Run pip in an environment; return what it prints.

    Raises:
        CalledProcessError: If pip fails; it has said why.
    """
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()


def freeze(python: Path) -> set[str]:
    """Return the lines of `pip freeze`, our own left out."""
    return {line for line in pip(python, "freeze", "--all") if not line.partition("=")[0].startswith(OWN)}


def main() -> int:
    """Install, compare, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, help="an environment with anomalib; a new one by default")
    parser.add_argument("--extras", nargs="*", default=[], help="extras to install as well")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        venv = args.venv or Path(work) / "venv"
        python = next(iter((venv / "Scripts").glob("python.exe")), venv / "bin" / "python")
        if args.venv is None:
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
            pip(python, "install", "--upgrade", "pip")
            pip(python, "install", "anomalib>=2.7")
        if not python.exists():
            parser.error(f"--venv must be a virtual environment, {python} is not there")
        before = freeze(python)
        pip(python, "wheel", "--no-deps", "--wheel-dir", work, str(ROOT))
        (wheel,) = Path(work).glob("*.whl")
        extras = f"[{','.join(args.extras)}]" if args.extras else ""
        pip(python, "install", f"{wheel}{extras}")
        after = freeze(python)
    gone, new = sorted(before - after), sorted(after - before)
    for sign, lines in (("-", gone), ("+", new)):
        for line in lines:
            print(sign, line)
    print(f"{len(before)} packages were there, {len(gone)} of them changed or went, {len(new)} lines are new")
    return 1 if gone else 0


if __name__ == "__main__":
    sys.exit(main())

"""Numbers outside their range are refused at once, in every command, as its help text says."""

from __future__ import annotations

import inspect
import math
import re
import subprocess
import sys

import pytest

from anomalib_synth.cli import COMMANDS, load, main
from anomalib_synth.commands.limits import LIMITS, Limits, check_numbers

# seeds are whole numbers everywhere; a range of another argument is its command's own
RANGE = re.compile(r"(?:each )?(in [(\[]0, 1[)\]]|>=? \d+)")
OWN = {"image_size", ("suggest", "per_family"), ("fit", "max_normals")}


def list_ranges() -> list[tuple[str, str, str]]:
    """Return command, argument and range of each number whose help text states one."""
    found = []
    for command in COMMANDS:
        text = inspect.getdoc(load(command)) or ""
        described = text.partition("Args:\n")[2].partition("\n\n")[0]
        for part in re.split(r"\n    (?=\w+: )", "\n" + described):
            name, _, words = part.strip().partition(": ")
            stated = RANGE.search(" ".join(words.split()))
            if stated and not {name, (command, name)} & OWN:
                found.append((command, name, stated.group(1)))
    return found


def test_ranges_of_help_texts_are_those_that_are_checked() -> None:
    ranges = list_ranges()
    assert {(command, name): stated for command, name, stated in ranges} == {
        (command, name): str(LIMITS.get(name)) for command, name, _ in ranges
    }
    assert len(ranges) > 25


@pytest.mark.parametrize(
    ("limits", "inside", "outside"),
    [
        (Limits(0, 1), [0, 0.5, 1], [-1e-9, 1 + 1e-9, math.nan]),
        (Limits(0, 1, without_least=True, without_most=True), [1e-9, 1 - 1e-9], [0, 1, math.nan]),
        (Limits(3), [3, 1e9, math.inf], [2.9, math.nan, -math.inf]),
    ],
)
def test_range_holds_its_bounds_unless_they_are_left_out(limits, inside, outside) -> None:
    assert all(value in limits for value in inside)
    assert not any(value in limits for value in outside)


def test_value_is_refused_with_range_and_remedy_when_it_is_outside() -> None:
    with pytest.raises(ValueError, match=r"^`false_alarm_rate` must be in \(0, 1\), got 5\. 0\.05 is one good"):
        check_numbers({"false_alarm_rate": 5})
    with pytest.raises(ValueError, match=r"^`workers` must be >= 1, got 0\.$"):
        check_numbers({"workers": 0})
    with pytest.raises(ValueError, match=r"^`strengths` must hold numbers in \(0, 1\], got 1\.5\. 1 is"):
        check_numbers({"strengths": (0.5, 1.5)})
    check_numbers({"false_alarm_rate": None, "workers": 1, "strengths": [1.0], "other": -1})


def test_nothing_heavy_is_imported_when_a_number_is_wrong(tmp_path) -> None:
    code = (
        "import sys; from anomalib_synth.cli import main\n"
        f"try: main(['calibrate', '--checkpoint=x.ckpt', '--normals={tmp_path}', '--out={tmp_path}/o', "
        "'--batch_size=0'])\n"
        "except SystemExit as error: print(error, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "anomalib-synth: `batch_size` must be >= 1, got 0. False\n"


def test_command_is_not_begun_when_a_number_is_wrong(tmp_path) -> None:
    with pytest.raises(SystemExit, match=r"`minutes` must be > 0, got 0\.0\."):
        main(["build", f"--normals={tmp_path}", f"--out={tmp_path / 'out'}", "--minutes=0"])
    assert not (tmp_path / "out").exists()

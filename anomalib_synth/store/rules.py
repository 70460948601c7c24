"""The rules for the fields of records on disk: each is written down once, and checked whenever a record is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LARGEST = 1e300
_DEEPEST = 16
_SHOWN = 60
_hex32 = re.compile(r"[0-9a-f]{32}").fullmatch
_unwritable = re.compile("[\0\ud800-\udfff]").search


@dataclass(frozen=True)
class FieldRule:
    """A rule for a field.

    Args:
        says: The rule in words, after "must be".
        holds: Returns whether a value follows the rule; must not raise for anything that JSON can hold.
    """

    says: str
    holds: Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class RecordSchema:
    """The fields of a record.

    Args:
        name: What the record is, with its article.
        rules: Rule by field.
        optional: Fields that may be missing.
        open_ended: Whether other fields may be there; their values must be plain data.
        relation: Checks the fields together: returns what is wrong as a clause, "" when nothing is. Called last.
    """

    name: str
    rules: Mapping[str, FieldRule]
    optional: frozenset[str] = frozenset()
    open_ended: bool = False
    relation: Callable[[dict[str, Any]], str] = lambda _: ""

    def __post_init__(self) -> None:
        """Keep what each check needs at hand: a store may have many rows."""
        object.__setattr__(self, "_names", frozenset(self.rules))
        object.__setattr__(self, "_values", itemgetter(*self.rules) if len(self.rules) > 1 else None)
        object.__setattr__(self, "_checks", tuple(rule.holds for rule in self.rules.values()))

    def find_fault(self, row: Any) -> str:
        """Return what is wrong with a record as a clause, "" when nothing is."""
        if type(row) is not dict:
            return f"is not {self.name}, which is an object with names and values, but {show(row)}"
        if row.keys() == self._names and self._values:  # type: ignore[attr-defined]
            for holds, value in zip(self._checks, self._values(row), strict=True):  # type: ignore[attr-defined]
                if not holds(value):
                    break
            else:
                return self.relation(row)
        elif fault := self._find_odd_names(row):
            return fault
        for name, rule in self.rules.items():
            if name in row and not rule.holds(row[name]):
                return f"has `{name}` = {show(row[name])}, which must be {rule.says}"
        return self.relation(row)

    def _find_odd_names(self, row: dict[str, Any]) -> str:
        missing = sorted(self._names - row.keys() - self.optional)  # type: ignore[attr-defined]
        unknown = sorted(row.keys() - self._names)  # type: ignore[attr-defined]
        if missing or (unknown and not self.open_ended):
            return f"must have the fields of {self.name}; missing {missing}, unknown {show(unknown)}"
        for name in unknown:
            if not is_text(name) or not is_plain(row[name]):
                return f"has {show(name)} = {show(row[name])}, which must be plain, finite data"
        return ""


def is_hash(value: Any) -> bool:
    """Return whether a value is a digest: 32 hexadecimal digits."""
    return type(value) is str and _hex32(value) is not None


def is_text(value: Any) -> bool:
    """Return whether a value is text that can be written down: a lone half of a surrogate pair cannot."""
    if type(value) is not str:
        return False
    return "\0" not in value if value.isascii() else _unwritable(value) is None


def is_inside(value: Any) -> bool:
    """Return whether a value is a relative path that stays inside the folder it starts from."""
    return is_text(value) and value != "" and not value.startswith("/") and ".." not in value.split("/")


def place(kind: str, *, optional: bool = False) -> FieldRule:
    """Return the rule of a path where a store keeps a file: ``images/ab/<32 hexadecimal digits from ab on>.png``."""
    matches = re.compile(rf"{kind}/([0-9a-f]{{2}})/\1[0-9a-f]{{30}}\.png").fullmatch
    says = f"'{kind}/ab/<32 hexadecimal digits from ab on>.png'"
    if optional:
        return FieldRule(f"{says}, or empty", lambda value: type(value) is str and (value == "" or matches(value)))
    return FieldRule(says, lambda value: type(value) is str and matches(value))


def is_number(value: Any, low: float = -_LARGEST, high: float = _LARGEST) -> bool:
    """Return whether a value is a finite number in a range; true and false are not numbers."""
    return type(value) in {int, float} and low <= value <= high


def is_plain(value: Any, depth: int = 0) -> bool:
    """Return whether a value is plain data: text, finite numbers, true, false, null, and lists and objects of them."""
    kind = type(value)
    if kind is float or kind is int:
        return -_LARGEST <= value <= _LARGEST
    if kind is str:
        return is_text(value)
    if kind is dict:
        return depth < _DEEPEST and all(is_text(n) and is_plain(each, depth + 1) for n, each in value.items())
    if kind is list:
        return depth < _DEEPEST and all(is_plain(each, depth + 1) for each in value)
    return kind is bool or value is None


def is_config(value: Any) -> bool:
    """Return whether a value is ``{"class_path": ..., "init_args": {...}}``, plain data throughout."""
    return (
        type(value) is dict
        and type(value.get("class_path")) is str
        and type(value.get("init_args", {})) is dict
        and is_plain(value)
    )


def like_before(holds: Callable[[Any], Any]) -> Callable[[Any], bool]:
    """Return a check that remembers the last value that passed: most rows of a store have the same value."""
    last: list[Any] = [object()]

    def check(value: Any) -> bool:
        if value != last[0]:
            if not holds(value):
                return False
            last[0] = value
        return True

    return check


def between(low: float, high: float) -> FieldRule:
    """Return the rule of a number in a range, both ends included; up to 1e-6 beyond them passes as rounding."""
    least, most = low - 1e-6, high + 1e-6
    return FieldRule(
        f"a number in [{low:g}, {high:g}]",
        lambda value: (type(value) is float or type(value) is int) and least <= value <= most,
    )


def whole(low: int, high: int = 2**53) -> FieldRule:
    """Return the rule of a whole number in a range, both ends included."""
    return FieldRule(f"a whole number >= {low}", lambda value: type(value) is int and low <= value <= high)


def one_of(*names: str) -> FieldRule:
    """Return the rule of one of some names."""
    return FieldRule(f"one of {', '.join(names)}", lambda value: type(value) is str and value in names)


def or_none(rule: FieldRule) -> FieldRule:
    """Return a rule that lets null through as well."""
    return FieldRule(f"{rule.says}, or null", lambda value: value is None or rule.holds(value))


TEXT = FieldRule("text", is_text)
FLAG = FieldRule("true or false", lambda value: type(value) is bool)
HASH = FieldRule("32 hexadecimal digits", is_hash)
HASH_OR_EMPTY = FieldRule(
    "32 hexadecimal digits, or empty", lambda value: type(value) is str and (value == "" or _hex32(value))
)
INSIDE = FieldRule("a relative path that stays inside its folder", is_inside)
POSITIVE = FieldRule(
    "a finite number >= 0", lambda value: (type(value) is float or type(value) is int) and 0 <= value <= _LARGEST
)
NUMBERS = FieldRule(
    "an object of finite numbers by name",
    lambda value: (
        type(value) is dict and all(is_text(name) and (each is None or is_number(each)) for name, each in value.items())
    ),
)
PLAIN = FieldRule("an object of plain, finite data", lambda value: type(value) is dict and is_plain(value))
CONFIG = FieldRule("`class_path` and `init_args` of a generator", like_before(is_config))


def show(value: Any) -> str:
    """Return a value as text for an error: short, and without characters that control a terminal."""
    try:
        text = ascii(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of too many digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"

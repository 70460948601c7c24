"""Reads annotation files safely: limited in size, with nothing in them resolved or run, and errors by file name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
import yaml

from anomalib_synth.store.rules import FieldRule, is_inside, is_text, show

if TYPE_CHECKING:
    from pathlib import Path

    from anomalib_synth.defects.marks import Mark
    from anomalib_synth.store.rules import RecordSchema

MAX_BYTES = 2**27
MAX_ELEMENTS = 2**21
_MAX_DEPTH = 64
_LARGEST = 10_000_000  # pixels
_LONGEST_LABEL = 200

LABEL = FieldRule(
    f"a text of at most {_LONGEST_LABEL} characters that can be printed",
    lambda value: is_text(value) and len(value) <= _LONGEST_LABEL and (value == "" or value.isprintable()),
)
FILE_NAME = FieldRule(
    "a relative path that stays inside its folder",
    lambda value: type(value) is str and is_inside(value.replace("\\", "/")) and value.strip() not in {"", "."},
)


@dataclass(frozen=True, eq=False, kw_only=True)
class MarkedImage:
    """The marks of one image in an annotation file.

    Args:
        name: Path of the image as the file has it, ``""`` where the file belongs to one image.
        size: Height and width as the file has them, None where it does not say.
        marks: The marks.
        types: Types of defects that the file names for the image as a whole.
    """

    name: str
    size: tuple[int, int] | None
    marks: list[Mark]
    types: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnnotationFile:
    """A file of annotations.

    Args:
        path: The file.
        argument: Name of the argument, for errors.
    """

    path: Path
    argument: str

    def refuse(self, fault: str, cause: Exception | None = None) -> NoReturn:
        """Raise an error about this file.

        Args:
            fault: What is wrong, as a clause.
            cause: The exception behind it.

        Raises:
            ValueError: In every case.
        """
        msg = (
            f"`{self.argument}` needs annotations that can be read, but {str(self.path)!r} {fault}. Correct it, or "
            "export it again."
        )
        raise ValueError(msg) from cause

    def check(self, schema: RecordSchema, row: Any, what: str) -> None:
        """Refuse a record that does not follow a schema.

        Raises:
            ValueError: If a field is missing, unknown, or breaks its rule.
        """
        if fault := schema.find_fault(row):
            self.refuse(f"has {what}, which {fault}")

    def read_text(self, limit: int | None = None) -> str:
        """Return the text of the file, which may have ``limit`` bytes, by default :data:`MAX_BYTES`.

        Raises:
            ValueError: If the file cannot be read, is too large, or is not UTF-8.
        """
        try:
            return self._read(limit or MAX_BYTES).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self.refuse(f"is no text in UTF-8 (byte {error.start})", error)

    def read_json(self) -> Any:
        """Return what a JSON file holds.

        Raises:
            ValueError: If it cannot be read, or holds numbers that are not finite.
        """
        text = self.read_text()
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except json.JSONDecodeError as error:
            self.refuse(f"is no JSON: {error.msg} in line {error.lineno}", error)
        except _FaultError as error:
            self.refuse(str(error), error)
        except RecursionError as error:
            self.refuse("is nested too deeply", error)
        except ValueError as error:  # a number of thousands of digits
            self.refuse(f"is no JSON: {error}", error)

    def read_xml(self) -> Element:
        """Return the root of an XML file. A document type is refused: it could name entities and other files.

        Raises:
            ValueError: If the file cannot be read, or has a document type, too many elements or too deep nesting.
        """
        builder, depth, count = TreeBuilder(), 0, 0

        def start(tag: str, attributes: dict[str, str]) -> None:
            nonlocal depth, count
            depth, count = depth + 1, count + 1
            if depth > _MAX_DEPTH or count > MAX_ELEMENTS:
                fault = f"has more than {MAX_ELEMENTS} elements, or more than {_MAX_DEPTH} in one another"
                raise _FaultError(fault)
            builder.start(tag, attributes)

        def end(tag: str) -> None:
            nonlocal depth
            depth -= 1
            builder.end(tag)

        def refuse_document_type(*_: object) -> None:
            fault = "has a document type (DOCTYPE), which could name entities and other files; take it out"
            raise _FaultError(fault)

        parser = expat.ParserCreate()
        parser.StartElementHandler, parser.EndElementHandler = start, end
        parser.CharacterDataHandler = builder.data
        parser.StartDoctypeDeclHandler = refuse_document_type
        data = self._read(MAX_BYTES)
        try:
            parser.Parse(data, True)
        except _FaultError as error:
            self.refuse(str(error), error)
        except (expat.ExpatError, LookupError, ValueError) as error:  # the last two come from its encoding
            self.refuse(f"is no XML: {error}", error)
        return builder.close()

    def read_yaml(self, limit: int) -> Any:
        """Return what a YAML file holds, every scalar as text.

        Raises:
            ValueError: If it cannot be read.
        """
        text = self.read_text(limit)
        try:
            return yaml.load(text, Loader=yaml.BaseLoader)  # makes texts, lists and objects, and nothing else
        except (
            yaml.YAMLError,
            RecursionError,
            ValueError,
            OverflowError,
        ) as error:  # the latter two for "\\U" and digits
            self.refuse(f"is no YAML: {' '.join(str(error).split())[:120]}", error)

    def to_points(self, values: Any, what: str, least: int) -> np.ndarray:
        """Return coordinates ``(x, y)``, (N, 2) float64, from a flat list of numbers.

        Raises:
            ValueError: If the values are no pairs of finite numbers, or there are fewer than ``least`` points.
        """
        fault = ""
        if type(values) is not list or any(type(value) not in {int, float} for value in values):
            fault = "which must be a list of numbers"
        elif len(values) % 2 or len(values) < 2 * least:
            fault = f"which must be x and y by turns, of at least {least} points"
        elif not all(-_LARGEST <= value <= _LARGEST for value in values):
            fault = "which must be pixels"
        if fault:
            self.refuse(f"has {what} {show(values)}, {fault}")
        return np.array(values, dtype=np.float64).reshape(-1, 2)

    def _read(self, limit: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            self.refuse(f"cannot be read ({error.strerror or error})", error)
        if len(data) > limit:
            self.refuse(f"has more than {limit / 2**20:g} MiB")
        return data


class _FaultError(Exception):
    """Raised within a parser, with what is wrong."""


def _refuse_constant(name: str) -> NoReturn:
    fault = f"holds {name}, which is no number"
    raise _FaultError(fault)

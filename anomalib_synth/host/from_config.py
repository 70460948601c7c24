"""Objects of anomalib and Lightning from the ``{class_path, init_args}`` of a configuration, by jsonargparse."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST = 600
_UNION = re.compile(r"^.*?Errors: - Expected a <class 'NoneType'> - | Given value type: .*$")  # said of any class


def check_object(base: type, section: Mapping[str, Any] | str | None, what: str) -> None:
    """Refuse a section whose class or arguments do not exist; nothing is built.

    Raises:
        ValueError: Saying why not.
    """
    _parse(base, section, what)


def build_object(base: type, section: Mapping[str, Any] | str | None, what: str) -> Any:
    """Return the object that a section describes.

    Args:
        base: What the object must be an instance of.
        section: ``{class_path, init_args}``, or a class path alone.
        what: What the section is called, as the beginning of an error: "`data.cap`".

    Raises:
        ValueError: If there is no such object; the message begins with ``what``.
    """
    parser, parsed = _parse(base, section, what)
    try:
        return parser.instantiate_classes(parsed)["object"]
    except (AttributeError, ImportError, TypeError, ValueError, KeyError, OSError) as error:
        raise _cannot_build(what, error) from error


def _parse(base: type, section: Mapping[str, Any] | str | None, what: str) -> tuple[Any, Any]:
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "object", fail_untyped=False, required=True)
    plain = copy.deepcopy(section)  # jsonargparse may build what is nested in place
    try:
        return parser, parser.parse_object({"object": plain})
    except (ArgumentError, AttributeError, ImportError, TypeError, ValueError, KeyError, OSError) as error:
        raise _cannot_build(what, error) from error


def _cannot_build(what: str, error: Exception) -> ValueError:
    reason = _UNION.sub("", " ".join(str(error).split()))
    shown = reason if len(reason) <= _LONGEST else reason[:_LONGEST] + " ..."
    return ValueError(f"{what} cannot be built: {shown}")

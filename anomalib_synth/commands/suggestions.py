"""Suggestions for misspelt names."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def suggest_names(name: str, known: Iterable[str]) -> str:
    """Return a sentence that names the most similar known name, for an error; ``""`` if none is similar.

    Example:
        >>> suggest_names("previw", ["preview", "export"]), suggest_names("x", ["preview"])
        (" Did you mean 'preview'?", '')
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""

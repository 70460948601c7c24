"""Prompts, and the family, size and position that their words name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from anomalib_synth.models.captions import split_words

Prompts = Sequence[str] | Path | str | Mapping[str, Sequence[str]]
SHAPES = {
    "scratch": "scratch scratches scrape scrapes groove grooves abrasion",
    "crack": "crack cracks cracked fracture fissure break",
    "fibre": "fibre fibres fiber fibers hair hairs lint",
    "thread_pull": "thread threads pull snag",
    "dent": "dent dents dented impression bump",
    "stain": "stain stains stained contamination spot spots dirt oil smudge discolouration discoloration",
    "corrosion": "corrosion corroded rust pitting pits",
    "burn": "burn burns burnt scorch scorched charred",
    "bubble": "bubble bubbles blister blisters blowhole",
    "hole": "hole holes puncture void",
    "chip": "chip chips chipped",
    "misprint": "misprint print smeared ghosted",
    "deformation": "deformation deformed bent warped",
}
_FAMILY = {word: family for family, words in SHAPES.items() for word in words.split()}
_VERTICAL = {"top": 0, "upper": 0, "bottom": 2, "lower": 2}
_HORIZONTAL = {"left": 0, "right": 2}
_CENTRE = {"centre", "center", "middle"}
_SMALLER = {"small", "tiny", "little", "short", "minute"}
_LARGER = {"large", "big", "long", "huge", "extended"}
_SMALL_WORDS = {"at", "in", "on", "of", "the", "near", "and", "side", "corner", "half"}
PLACE_WORDS = {*_VERTICAL, *_HORIZONTAL, *_CENTRE, *_SMALL_WORDS}


def read_prompts(prompts: Prompts) -> list[str]:
    """Return the prompts of a list, of a text file with one prompt a line, or of a vocabulary.

    Empty lines and lines that start with ``#`` are left out. For vocabularies see :func:`combine_words`.

    Raises:
        ValueError: If there is no prompt, the file cannot be read, or the vocabulary has wrong parts.
    """
    if isinstance(prompts, Mapping):
        lines = combine_words(prompts)
    elif isinstance(prompts, (str, Path)):
        try:
            lines = Path(prompts).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            msg = f"`prompts` must be a list of texts or a text file with one a line, got {str(prompts)!r}: {error}."
            raise ValueError(msg) from error
    else:
        lines = [str(prompt) for prompt in prompts]
    found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not found:
        msg = f"`prompts` must hold at least one text, got {prompts!r}."
        raise ValueError(msg)
    return found


def keep_prompts(prompts: Prompts | None) -> dict[str, list[str]] | list[str] | None:
    """Return prompts as a config keeps them: a vocabulary as it is, a list or a file as its texts.

    Raises:
        ValueError: See :func:`read_prompts`.
    """
    if prompts is None:
        return None
    texts = read_prompts(prompts)
    return {part: list(words) for part, words in prompts.items()} if isinstance(prompts, Mapping) else texts


def combine_words(vocabulary: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the texts of a vocabulary: each size with each appearance, type and position.

    Args:
        vocabulary: Words or phrases by part: ``types``, and optionally ``sizes``, ``appearances`` and ``positions``.
            An empty phrase leaves its part out of the text.

    Raises:
        ValueError: If a part is unknown or not a list of texts, or ``types`` is missing or has an empty text.

    Example:
        >>> combine_words({"types": ["scratch", "oil stain"], "sizes": ["", "small"]})
        ['a scratch', 'an oil stain', 'a small scratch', 'a small oil stain']
    """
    parts = ("sizes", "appearances", "types", "positions")
    unknown = [name for name in vocabulary if name not in parts]
    wrong = [name for name, words in vocabulary.items() if isinstance(words, str) or not words]
    if unknown or wrong or not all(vocabulary.get("types", [""])):
        msg = (
            f"`prompts` as a vocabulary must have `types`, and may have {', '.join(f'`{p}`' for p in parts)}, each a "
            f"list of texts (of `types` none empty), got {dict(vocabulary)!r}."
        )
        raise ValueError(msg)
    phrases = (" ".join(filter(None, words)) for words in product(*(vocabulary.get(part, [""]) for part in parts)))
    return [f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}" for phrase in phrases]


def family_of(prompt: str) -> str | None:
    """Return the family that the first fitting word of a prompt names, None if no word names one.

    Example:
        >>> family_of("a long pale scratch, low contrast"), family_of("something odd")
        ('scratch', None)
    """
    return next((_FAMILY[word] for word in split_words(prompt) if word in _FAMILY), None)


def say_contrast(prompt: str) -> str:
    """Return a prompt that names a contrast, adding "high contrast" if it names none: the strength scales it later.

    Example:
        >>> say_contrast("a dark stain"), say_contrast("a dark stain, low contrast")
        ('a dark stain, high contrast', 'a dark stain, low contrast')
    """
    return prompt if "contrast" in split_words(prompt) else f"{prompt}, high contrast"


def wanted_size(prompt: str) -> int:
    """Return the size that a prompt asks for: -1 for small, 1 for large, 0 if it names none or both.

    Example:
        >>> wanted_size("a short scratch"), wanted_size("a stain"), wanted_size("a large dent")
        (-1, 0, 1)
    """
    words = set(split_words(prompt))
    return bool(words & _LARGER) - bool(words & _SMALLER)


def likeness(prompt: str, caption: str) -> int:
    """Return how many words of a prompt are in a caption, to choose the shape that comes closest to the prompt."""
    return len(set(split_words(prompt)) & set(split_words(caption)))


def restrict_to_position(prompt: str, cells: np.ndarray | None) -> np.ndarray | None:
    """Return the cells that a prompt's position words allow, such as "top left" or "centre", in thirds of the image.

    Args:
        prompt: The prompt.
        cells: (h, w) bool, where the part is; None for everywhere.

    Returns:
        The cells of the part that are at the position, or ``cells`` if the prompt names none or the part is not there.
    """
    words = set(split_words(prompt))
    rows = {index for word, index in _VERTICAL.items() if word in words}
    columns = {index for word, index in _HORIZONTAL.items() if word in words}
    if not rows and not columns:
        if not words & _CENTRE:
            return cells
        rows, columns = {1}, {1}
    grid = np.ones((12, 12), dtype=bool) if cells is None else cells
    third = [np.arange(size) * 3 // size for size in grid.shape]
    allowed = np.isin(third[0], list(rows or {0, 1, 2}))[:, None] & np.isin(third[1], list(columns or {0, 1, 2}))
    both = grid & allowed
    return both if both.any() else cells

"""Batches of images that have one size, limited in number and in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

T = TypeVar("T")


def batch_by_size(
    items: Iterable[T],
    size_of: Callable[[T], Sequence[int]],
    *,
    count: int | None = None,
    most: int | None = None,
    weigh: Callable[[T], int] | None = None,
) -> Iterator[list[T]]:
    """Yield batches of consecutive items that have one size; an item heavier than ``most`` is a batch of its own.

    Args:
        items: The items, taken lazily.
        size_of: Returns the size of an item's image, such as its shape.
        count: Most items in a batch, None for any number.
        most: Largest total weight of a batch, None for any weight.
        weigh: Returns the weight of an item, such as its bytes; by default its number of pixels, which is the product
            of the last two numbers of its size.

    Example:
        >>> list(batch_by_size([(8, 8), (8, 8), (8, 8), (4, 8)], lambda size: size, count=2))
        [[(8, 8), (8, 8)], [(8, 8)], [(4, 8)]]
    """
    batch: list[T] = []
    size: Sequence[int] = ()
    held = 0
    for item in items:
        own = size_of(item)
        weight = own[-1] * own[-2] if weigh is None else weigh(item)
        full = len(batch) == count or (most is not None and held + weight > most)
        if batch and (own != size or full):
            yield batch
            batch, held = [], 0
        batch.append(item)
        size = own
        held += weight
    if batch:
        yield batch


def fill_chunks(items: Sequence[T], size: int) -> Iterator[tuple[list[T], int]]:
    """Yield chunks of exactly ``size`` items, each with its number of real items; the last one is padded.

    The last bits of a network's output depend on the number of rows in a batch, so every chunk has the same number.
    The padding repeats the last item.

    Example:
        >>> list(fill_chunks("abc", 2))
        [(['a', 'b'], 2), (['c', 'c'], 1)]
    """
    for start in range(0, len(items), size):
        own = list(items[start : start + size])
        yield own + own[-1:] * (size - len(own)), len(own)

"""Batches of images of one size: what a stack can hold, and no more than memory is good for."""

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
    """Yield consecutive items of one size, in order; an item that is too heavy alone is a batch of its own.

    Args:
        items: The items, drawn from only as far as the batch that is asked for.
        size_of: Size of an item's image, such as its shape.
        count: Most items in a batch, None for any number.
        most: Most of what the items of a batch weigh together, None for any weight.
        weigh: What an item weighs, such as bytes; by default its pixels: the product of the last two of its size.

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
    """Yield chunks of just ``size`` items, the last filled up with its last item, and how many of each are its own.

    The last bits of what a network computes depend on how many rows stand side by side, so they always are as many.

    Example:
        >>> list(fill_chunks("abc", 2))
        [(['a', 'b'], 2), (['c', 'c'], 1)]
    """
    for start in range(0, len(items), size):
        own = list(items[start : start + size])
        yield own + own[-1:] * (size - len(own)), len(own)

"""What is odd about a folder of good images: sizes, depths, copies, brightness, parts that moved."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.building.image_facts import ImageFacts
    from anomalib_synth.images import WhitePoint

THUMBNAIL = 64  # pixels a side
_ENOUGH = 8  # images, below which nothing can be called unusual
_FAR = 6.0  # robust deviations
_LEAST_BRIGHTNESS = 0.05  # of white: what nobody would call another exposure
_MANY = 0.1  # of the images, from which they are no exceptions
_NEAR_COPY = 0.25  # of what is usual between an image and the one most like it
_AT_ONCE = 512  # images that are compared with all others at a time, so that thousands take no more memory
_STILL = 0.5  # correlation with the median image from which parts can be said to lie still
_MOVED = 0.05  # of a side
_SAME_ASPECT = 1.02
_MUCH_MOVE = 0.3  # of the images
_SAID = {  # of one image, of several
    "copies": ("shows the same as another and counts once", "show the same as another and count once"),
    "near copies": (
        "is nearly the same as another, as one picture saved twice; the two stay on one side of the split",
        "are nearly the same as another, as one picture saved twice; they stay on one side of the split",
    ),
    "brightness": (
        "is much brighter or darker than usual; take it away if it is not good",
        "are much brighter or darker than usual; take them away if they are not good",
    ),
    "moved": (
        f"shows the part moved by {_MOVED:.0%} of a side or more",
        f"show the part moved by {_MOVED:.0%} of a side or more",
    ),
}


@dataclass(frozen=True)
class Oddity:
    """Something odd.

    Args:
        kind: ``sizes``, ``depths``, ``copies``, ``near copies``, ``brightness`` or ``moved``.
        text: What it is and what it means.
        names: The images, where it is some of them.
    """

    kind: str
    text: str
    names: list[str] = field(default_factory=list)


def find_oddities(images: Sequence[ImageFacts], white: WhitePoint) -> tuple[list[list[str]], list[Oddity]]:
    """Return the contents by what they show, copies together, and what is odd; each odd image says so too."""
    first: dict[str, ImageFacts] = {}
    copies = []
    for look in images:
        if look.content in first:
            copies.append(look.name)
            look.odd = f"a copy of {first[look.content].name}"
        first.setdefault(look.content, look)
    unique = list(first.values())
    groups = group_near_copies([look.thumbnail for look in unique])
    contents = [[unique[n].content for n in group] for group in groups]
    found = [
        *_describe_sizes(unique),
        *_describe_depths(unique, white),
        *_name("copies", copies),
        *_describe_near_copies(unique, groups),
        *_describe_brightness(unique),
        *_describe_moves(unique),
    ]
    return contents, found


def group_near_copies(thumbnails: Sequence[np.ndarray]) -> list[list[int]]:
    """Return the images in groups that look like one picture saved twice, or taken twice.

    Such a pair differs by much less than what is usual between an image and the one most like it. Where images are
    alike throughout, as in a sequence, none is: then nothing tells copies from others.
    """
    count = len(thumbnails)
    if count < _ENOUGH:
        return [[n] for n in range(count)]
    flat = np.stack([thumbnail.reshape(-1) for thumbnail in thumbnails]).astype(np.float64)
    squares = (flat**2).sum(1)

    def measure(rows: np.ndarray) -> np.ndarray:
        products = squares[rows, None] + squares[None] - 2 * flat[rows] @ flat.T
        distance = np.sqrt(np.maximum(products, 0) / flat.shape[1])
        distance[np.arange(len(rows)), rows] = np.inf
        return distance

    everything = np.arange(count)
    nearest = np.concatenate([measure(everything[n : n + _AT_ONCE]).min(1) for n in range(0, count, _AT_ONCE)])
    limit = _NEAR_COPY * float(np.median(nearest))
    close = np.flatnonzero(nearest < limit)
    pairs = [np.empty((0, 2), int)]
    for n in range(0, len(close), _AT_ONCE):
        rows, columns = np.nonzero(measure(close[n : n + _AT_ONCE]) < limit)
        pairs.append(np.stack([close[n : n + _AT_ONCE][rows], columns], 1))
    joined = np.concatenate(pairs)
    graph = coo_array((np.ones(len(joined)), (joined[:, 0], joined[:, 1])), shape=(count, count))
    grouped: dict[int, list[int]] = defaultdict(list)
    for n, group in enumerate(connected_components(graph, directed=False)[1].tolist()):
        grouped[group].append(n)
    return list(grouped.values())


def find_bright(brightness: Sequence[float]) -> list[int]:
    """Return the images that are much brighter or darker than usual, by deviations from the median."""
    if len(brightness) < _ENOUGH:
        return []
    values = np.asarray(brightness)
    away = np.abs(values - np.median(values))
    spread = 1.4826 * float(np.median(away))
    return [int(n) for n in np.flatnonzero((away > _FAR * spread) & (away > _LEAST_BRIGHTNESS))]


def find_moved(thumbnails: Sequence[np.ndarray]) -> dict[int, tuple[float, float]]:
    """Return how far the parts of some images lie from where they usually do, right and down, in shares of the sides.

    By phase correlation with the median image. Nothing is said where images have no common place to compare, as
    textures, and of an image that is no more like the others once it is shifted back.
    """
    if len(thumbnails) < _ENOUGH:
        return {}
    usual = np.median(np.stack(thumbnails), axis=0)
    alike = [_correlate(thumbnail, usual) for thumbnail in thumbnails]
    if np.median(alike) < _STILL:
        return {}
    window = np.outer(*[np.hanning(THUMBNAIL + 2)[1:-1]] * 2)
    reference = np.fft.fft2((usual - usual.mean()) * window)
    moved = {}
    for n, thumbnail in enumerate(thumbnails):
        cross = np.fft.fft2((thumbnail - thumbnail.mean()) * window) * reference.conj()
        peak = np.fft.ifft2(cross / np.maximum(np.abs(cross), 1e-9)).real
        down, right = (int(each) for each in np.unravel_index(int(peak.argmax()), peak.shape))
        down, right = (each - THUMBNAIL if each > THUMBNAIL // 2 else each for each in (down, right))
        if max(abs(down), abs(right)) < _MOVED * THUMBNAIL:
            continue
        inner = _overlap(thumbnail, down, right), _overlap(usual, -down, -right)
        if _correlate(*inner) > max(_STILL, alike[n] + 0.1):
            moved[n] = (right / THUMBNAIL, down / THUMBNAIL)
    return moved


def _overlap(picture: np.ndarray, down: int, right: int) -> np.ndarray:
    """Return the part of a picture that is left when it is shifted by so much against another."""
    rows = slice(max(down, 0), THUMBNAIL + min(down, 0))
    columns = slice(max(right, 0), THUMBNAIL + min(right, 0))
    return picture[rows, columns]


def _correlate(first: np.ndarray, second: np.ndarray) -> float:
    a, b = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / norm if norm > 1e-9 else 0.0


def _describe_sizes(images: Sequence[ImageFacts]) -> list[Oddity]:
    sizes = Counter(look.size for look in images)
    if len(sizes) < 2:
        return []
    common = sizes.most_common(1)[0][0]
    names = [look.name for look in images if look.size != common]
    shown = ", ".join(f"{w} x {h} ({count})" for (w, h), count in sizes.most_common(4))
    aspects = {round(w / h, 2) for w, h in sizes}
    more = " Of other proportions, so they are squeezed unlike the others." if len(aspects) > 1 else ""
    return [_mark(images, Oddity("sizes", f"Images are of {len(sizes)} sizes: {shown}.{more}", names), "another size")]


def _describe_depths(images: Sequence[ImageFacts], white: WhitePoint) -> list[Oddity]:
    kinds = Counter(look.kind for look in images)
    found = []
    if len(kinds) > 1:
        shown = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        common = kinds.most_common(1)[0][0]
        names = [look.name for look in images if look.kind != common]
        text = f"Images are of {len(kinds)} kinds: {shown}. Are they from one camera?"
        found.append(_mark(images, Oddity("depths", text, names), "another kind of file"))
    reasons = Counter(look.difference for look in images if look.difference)
    for reason, count in reasons.most_common():
        at = f" White is {white}." if str(white) and "8 bits" in reason else ""
        text = (
            f"{count} of {len(images)} images have {reason}: the build works on copies that every reader reads alike, "
            f"in the folder `images`.{at}"
        )
        found.append(Oddity("depths", text))
    return found


def _describe_near_copies(images: Sequence[ImageFacts], groups: Sequence[Sequence[int]]) -> list[Oddity]:
    several = [group for group in groups if len(group) > 1]
    names = [images[n].name for group in several for n in group[1:]]
    for group in several:
        for n in group[1:]:
            images[n].odd = images[n].odd or f"nearly the same as {images[group[0]].name}"
    return _name("near copies", names)


def _describe_brightness(images: Sequence[ImageFacts]) -> list[Oddity]:
    found = find_bright([look.brightness for look in images])
    middle = float(np.median([look.brightness for look in images])) if found else 0.0
    names = []
    for n in found:
        images[n].odd = images[n].odd or f"{'brighter' if images[n].brightness > middle else 'darker'} than usual"
        names.append(images[n].name)
    if len(names) > _MANY * len(images):
        text = (
            f"Brightness varies: {len(names)} of {len(images)} images are much brighter or darker than the others. "
            "Where that is no property of the parts, steady the light; the models must take it for normal."
        )
        return [Oddity("brightness", text, names)]
    return _name("brightness", names)


def _describe_moves(images: Sequence[ImageFacts]) -> list[Oddity]:
    aspects = [look.size[0] / look.size[1] for look in images]
    alike = bool(aspects) and max(aspects) < _SAME_ASPECT * min(aspects)  # else a place means nothing
    moved = find_moved([look.thumbnail for look in images]) if alike else {}
    if not moved:
        return []
    for n, (right, down) in moved.items():
        sides = [(abs(right), "right" if right > 0 else "left"), (abs(down), "down" if down > 0 else "up")]
        where = " and ".join(f"{share:.0%} {side}" for share, side in sides if share >= 0.5 * _MOVED)
        images[n].odd = images[n].odd or f"the part lies {where}"
    names = [images[n].name for n in moved]
    if len(moved) > _MUCH_MOVE * len(images):
        text = (
            f"The part does not lie still: in {len(moved)} of {len(images)} images it is moved by "
            f"{_MOVED:.0%} of a side or more. PaDiM and DiscriminativePadim compare places; align the images if "
            "you can."
        )
        return [Oddity("moved", text, names)]
    return _name("moved", names)


def _name(kind: str, names: list[str]) -> list[Oddity]:
    """Return the oddity of some images, none for no image."""
    if not names:
        return []
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    one, many = _SAID[kind]
    said = f"1 image {one}" if len(names) == 1 else f"{len(names)} images {many}"
    return [Oddity(kind, f"{said}: {shown}.", names)]


def _mark(images: Sequence[ImageFacts], oddity: Oddity, text: str) -> Any:
    named = set(oddity.names)
    for look in images:
        if look.name in named:
            look.odd = look.odd or text
    return oddity

"""Finds what is odd about a folder of good images: sizes, depths, copies, brightness, moved parts."""

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
_ENOUGH = 8  # images; of fewer none can be called unusual
_FAR = 6.0  # robust standard deviations
_LEAST_BRIGHTNESS = 0.05  # of white; a smaller difference is no other exposure
_MANY = 0.1  # of the images; more are no exceptions
_NEAR_COPY = 0.25  # of the median distance between an image and the one most like it
_AT_ONCE = 512  # images that are compared with all others at a time, to limit memory
_STILL = 0.5  # median correlation with the median image; above it, parts lie in one place
_MOVED = 0.05  # of a side
_SAME_ASPECT = 1.02
_MUCH_MOVE = 0.3  # of the images
_SAID = {  # of one image, of several
    "copies": ("shows the same as another and counts once", "show the same as another and count once"),
    "near copies": (
        "is nearly the same as another, like a picture saved twice; the two stay on one side of the split",
        "are nearly the same as another, like a picture saved twice; they stay on one side of the split",
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
    """Something odd about a folder of images.

    Args:
        kind: ``sizes``, ``depths``, ``copies``, ``near copies``, ``brightness`` or ``moved``.
        text: What it is and what it means.
        names: The images that are odd; none if the oddity is about the whole folder.
    """

    kind: str
    text: str
    names: list[str] = field(default_factory=list)


def find_oddities(images: Sequence[ImageFacts], white: WhitePoint) -> tuple[list[list[str]], list[Oddity]]:
    """Return the contents, near copies in one group, and what is odd. Sets ``odd`` of each odd image, too."""
    first: dict[str, ImageFacts] = {}
    copies = []
    for image in images:
        if image.content in first:
            copies.append(image.name)
            image.odd = f"a copy of {first[image.content].name}"
        first.setdefault(image.content, image)
    unique = list(first.values())
    groups = group_near_copies([image.thumbnail for image in unique])
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
    """Group images that look like one picture saved or taken twice.

    Two such images differ by much less than the median distance between an image and the one most like it. In a folder
    where all images are alike, such as a sequence, no pair does, and copies cannot be told from other images.

    Args:
        thumbnails: Small grey pictures, all of one shape, in [0, 1].

    Returns:
        Groups of indices; an image without a near copy is a group of one.
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
    """Return the indices of images that are much brighter or darker than the median."""
    if len(brightness) < _ENOUGH:
        return []
    values = np.asarray(brightness)
    away = np.abs(values - np.median(values))
    spread = 1.4826 * float(np.median(away))
    return [int(n) for n in np.flatnonzero((away > _FAR * spread) & (away > _LEAST_BRIGHTNESS))]


def find_moved(thumbnails: Sequence[np.ndarray]) -> dict[int, tuple[float, float]]:
    """Return how far parts lie from their usual place: right and down, as shares of width and height, by image.

    Measured by phase correlation with the median image. The result is empty if the images have no common layout, as
    textures have none. An image is left out if shifting it back does not make it more like the others.
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
    """Return the part of a picture that overlaps another one when it is shifted by so many pixels."""
    rows = slice(max(down, 0), THUMBNAIL + min(down, 0))
    columns = slice(max(right, 0), THUMBNAIL + min(right, 0))
    return picture[rows, columns]


def _correlate(first: np.ndarray, second: np.ndarray) -> float:
    a, b = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / norm if norm > 1e-9 else 0.0


def _describe_sizes(images: Sequence[ImageFacts]) -> list[Oddity]:
    sizes = Counter(image.size for image in images)
    if len(sizes) < 2:
        return []
    common = sizes.most_common(1)[0][0]
    names = [image.name for image in images if image.size != common]
    shown = ", ".join(f"{w} x {h} ({count})" for (w, h), count in sizes.most_common(4))
    aspects = {round(w / h, 2) for w, h in sizes}
    more = " Their proportions differ, so the models see some of them squeezed." if len(aspects) > 1 else ""
    return [_mark(images, Oddity("sizes", f"Images are of {len(sizes)} sizes: {shown}.{more}", names), "another size")]


def _describe_depths(images: Sequence[ImageFacts], white: WhitePoint) -> list[Oddity]:
    kinds = Counter(image.kind for image in images)
    found = []
    if len(kinds) > 1:
        shown = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        common = kinds.most_common(1)[0][0]
        names = [image.name for image in images if image.kind != common]
        text = f"Images are of {len(kinds)} kinds: {shown}. Are they from one camera?"
        found.append(_mark(images, Oddity("depths", text, names), "another kind of file"))
    reasons = Counter(image.difference for image in images if image.difference)
    for reason, count in reasons.most_common():
        at = f" White is {white}." if str(white) and "8 bits" in reason else ""
        text = (
            f"{count} of {len(images)} images have {reason}: the build works on 8-bit upright copies in the folder "
            f"`images`.{at}"
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
    found = find_bright([image.brightness for image in images])
    middle = float(np.median([image.brightness for image in images])) if found else 0.0
    names = []
    for n in found:
        images[n].odd = images[n].odd or f"{'brighter' if images[n].brightness > middle else 'darker'} than usual"
        names.append(images[n].name)
    if len(names) > _MANY * len(images):
        text = (
            f"Brightness varies: {len(names)} of {len(images)} images are much brighter or darker than the others. "
            "The models take that for normal. If the parts themselves do not vary so much, keep the light constant."
        )
        return [Oddity("brightness", text, names)]
    return _name("brightness", names)


def _describe_moves(images: Sequence[ImageFacts]) -> list[Oddity]:
    aspects = [image.size[0] / image.size[1] for image in images]
    alike = bool(aspects) and max(aspects) < _SAME_ASPECT * min(aspects)  # else places cannot be compared
    moved = find_moved([image.thumbnail for image in images]) if alike else {}
    if not moved:
        return []
    for n, (right, down) in moved.items():
        sides = [(abs(right), "right" if right > 0 else "left"), (abs(down), "down" if down > 0 else "up")]
        where = " and ".join(f"{share:.0%} {side}" for share, side in sides if share >= 0.5 * _MOVED)
        images[n].odd = images[n].odd or f"the part lies {where}"
    names = [images[n].name for n in moved]
    if len(moved) > _MUCH_MOVE * len(images):
        text = (
            f"The part does not lie in one place: in {len(moved)} of {len(images)} images it is moved by {_MOVED:.0%} "
            "of a side or more. PaDiM and DiscriminativePadim compare images place by place; align the images if you "
            "can."
        )
        return [Oddity("moved", text, names)]
    return _name("moved", names)


def _name(kind: str, names: list[str]) -> list[Oddity]:
    """Return a list with the oddity of some images, empty if there are none."""
    if not names:
        return []
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    one, many = _SAID[kind]
    said = f"1 image {one}" if len(names) == 1 else f"{len(names)} images {many}"
    return [Oddity(kind, f"{said}: {shown}.", names)]


def _mark(images: Sequence[ImageFacts], oddity: Oddity, text: str) -> Any:
    named = set(oddity.names)
    for image in images:
        if image.name in named:
            image.odd = image.odd or text
    return oddity

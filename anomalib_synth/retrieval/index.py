"""An index of vectors of windows: the nearest by cosine, found with faiss."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from anomalib_synth.installation import install_extras
from anomalib_synth.models.threads import one_faiss_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT = 1
EXACT_UP_TO = 2**14
_DIMENSIONS = 64
_PROBED_CELLS = 8
_CANDIDATES = 4
_LEVELS = 1e6


class WindowIndex:
    """The vectors of normals' windows, and which image each was cut from.

    Up to ``EXACT_UP_TO`` vectors (16,384: some 1,800 normals) every one of them is compared (``IndexFlatIP``). That
    takes about a millisecond there and grows with the number; at 100,000 vectors it would cost as much as embedding the
    query. Beyond, only candidates are: 4 k of them, the nearest in the 64 principal components, looked for in the 8
    nearest of 4·√M cells (``IndexIVFFlat``). That is a hundred times faster and misses a neighbour now and then, one
    about as near in its place. Cosines are computed anew from the vectors found and rounded to 1e-6, so that they are
    the same however many queries are asked at once.

    Args:
        vectors: (M, D) float32, unit rows, M >= 1.
        images: (M,) integers: vectors of one image have one number.
        exact_up_to: Largest number of vectors that are all compared.

    Raises:
        ValueError: If the numbers do not agree, or rows are no unit vectors.
        ImportError: If faiss is not installed.

    Example:
        >>> index = WindowIndex(np.eye(3, dtype=np.float32), [0, 0, 1])
        >>> index.search(np.array([[0.6, 0.8, 0.0]], dtype=np.float32), k=2)[0]
        array([[0.8, 0.6]])
    """

    def __init__(
        self, vectors: np.ndarray, images: Sequence[int] | np.ndarray, *, exact_up_to: int = EXACT_UP_TO
    ) -> None:
        self.vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self.images = np.asarray(images, dtype=np.int64)
        if self.vectors.ndim != 2 or not len(self.vectors) or self.images.shape != (len(self.vectors),):
            msg = (
                "`vectors` must be (M, D) with M >= 1 and `images` one number a vector, "
                f"got {self.vectors.shape} and {self.images.shape}."
            )
            raise ValueError(msg)
        lengths = np.linalg.norm(self.vectors, axis=1)
        if not np.all(np.abs(lengths - 1) < 1e-3):
            msg = f"`vectors` must be unit rows, got lengths from {lengths.min():.3g} to {lengths.max():.3g}."
            raise ValueError(msg)
        self._most = int(np.bincount(np.unique(self.images, return_inverse=True)[1]).max())
        self._exact_up_to = exact_up_to
        self.is_exact = len(self.vectors) <= exact_up_to
        self._index = _build(self.vectors, exact=self.is_exact)

    def __len__(self) -> int:
        """Return the number of vectors."""
        return len(self.vectors)

    def __reduce__(self) -> tuple:
        """Copy and send the vectors; faiss's own objects are made anew."""
        return partial(WindowIndex, exact_up_to=self._exact_up_to), (self.vectors, self.images)

    @property
    def num_images(self) -> int:
        """Number of images the windows were cut from."""
        return len(np.unique(self.images))

    def search(
        self, queries: np.ndarray, *, k: int, without: Sequence[int] | np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the nearest vectors of each query.

        Args:
            queries: (Q, D) float32, unit rows.
            k: Number of neighbours; fewer are given where there are fewer.
            without: (Q,) number of the image whose vectors do not count for the query; None: all count.

        Returns:
            Cosines (Q, k) float64, falling, and rows of :attr:`vectors` (Q, k) int64. Where an approximate index finds
            fewer, the cosine is -1 and the row -1.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        wide = min(len(self), (1 if self.is_exact else _CANDIDATES) * (k if without is None else k + self._most))
        _, rows = self._index.search(queries, wide)
        cosines = np.einsum("qd,qkd->qk", queries.astype(np.float64), self.vectors[rows].astype(np.float64))
        left_out = rows < 0
        if without is not None:
            left_out |= self.images[rows] == np.asarray(without)[:, None]
        cosines = np.where(left_out, -1.0, np.round(cosines * _LEVELS) / _LEVELS)
        least = len(self) if without is None else len(self) - self._most
        order = np.argsort(-cosines, axis=1, kind="stable")[:, : max(1, min(k, least))]
        return np.take_along_axis(cosines, order, 1), np.take_along_axis(np.where(left_out, -1, rows), order, 1)

    def save(self, folder: Path | str, facts: dict[str, Any]) -> None:
        """Write the vectors and what they are of; a reader finds all of it or nothing.

        Args:
            folder: A folder that is not there yet; one that another process has just written stays.
            facts: Plain data, given back by :meth:`load`.
        """
        folder = Path(folder)
        work = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
        work.mkdir(parents=True)
        try:
            save_file({"vectors": self.vectors, "images": self.images}, work / "windows.safetensors")
            head = json.dumps({"format": FORMAT, "facts": facts}, indent=1) + "\n"
            (work / "index.json").write_text(head, encoding="utf-8")
            try:
                os.rename(work, folder)  # noqa: PTH104  (refuses a folder that holds anything)
            except OSError:
                if not (folder / "index.json").is_file():
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)

    @classmethod
    def load(cls, folder: Path | str, *, exact_up_to: int = EXACT_UP_TO) -> tuple[WindowIndex, dict[str, Any]]:
        """Return a saved index and its facts.

        Raises:
            ValueError: If there is none, it is of a newer format, or it is damaged.
        """
        folder = Path(folder)
        try:
            head = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            if head["format"] != FORMAT:
                msg = f"Index {str(folder)!r} has format {head['format']}, this version reads {FORMAT}. Remove it."
                raise ValueError(msg)
            tensors = load_file(folder / "windows.safetensors")
            return cls(tensors["vectors"], tensors["images"], exact_up_to=exact_up_to), head["facts"]
        except (OSError, KeyError, TypeError, json.JSONDecodeError, SafetensorError) as error:
            msg = f"Index {str(folder)!r} is missing or damaged ({error!r}). Remove the folder; it is built again."
            raise ValueError(msg) from error


def require_faiss() -> None:
    """Say that faiss is missing before anything is computed for it.

    Raises:
        ImportError: If it is not installed.
    """
    _import()


def _import() -> Any:
    try:
        import faiss
    except ImportError as error:
        msg = f"The retrieval filter needs faiss, which is not installed: {install_extras('filter')}"
        raise ImportError(msg) from error
    return faiss


def _build(vectors: np.ndarray, *, exact: bool) -> Any:
    faiss = _import()
    flat = faiss.IndexFlatIP(vectors.shape[1])
    if exact:
        flat.add(vectors)
        return flat
    # distances in place of products, which moving the origin would change; of unit vectors both have one order
    kept = min(_DIMENSIONS, vectors.shape[1])
    components, quantizer = faiss.PCAMatrix(vectors.shape[1], kept), faiss.IndexFlatL2(kept)
    cells = max(1, min(round(4 * len(vectors) ** 0.5), len(vectors) // 40))
    lists = faiss.IndexIVFFlat(quantizer, kept, cells)
    lists.nprobe = min(_PROBED_CELLS, cells)
    lists.cp.niter, lists.cp.max_points_per_centroid = 10, 64
    index = faiss.IndexPreTransform(components, lists)
    with one_faiss_thread():
        index.train(vectors)
        index.add(vectors)
    return index

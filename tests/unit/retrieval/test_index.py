"""The index: what brute force finds, saved and read whole."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest

from anomalib_synth.retrieval import WindowIndex


def draw(count: int, width: int = 24, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, width)) + 2 * rng.normal(size=(1, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


VECTORS = draw(300)
IMAGES = np.arange(300) // 4
QUERIES = draw(17, seed=1)


def search_all(queries, k, without=None) -> tuple[np.ndarray, np.ndarray]:
    """Compare with every vector, in float64."""
    cosines = queries.astype(np.float64) @ VECTORS.T.astype(np.float64)
    if without is not None:
        cosines[IMAGES[None] == np.asarray(without)[:, None]] = -2
    order = np.argsort(-cosines, axis=1)[:, :k]
    return np.take_along_axis(cosines, order, 1), order


@pytest.mark.parametrize("k", [1, 5, 200])
def test_it_finds_what_brute_force_finds(k) -> None:
    cosines, rows = WindowIndex(VECTORS, IMAGES).search(QUERIES, k=k)
    wanted, order = search_all(QUERIES, k)
    np.testing.assert_allclose(cosines, wanted, atol=1e-6)
    assert (np.sort(rows, axis=1) == np.sort(order, axis=1)).mean() > 0.999  # near ties may change places


def test_an_image_can_be_left_out() -> None:
    index = WindowIndex(VECTORS, IMAGES)
    cosines, rows = index.search(VECTORS, k=5, without=IMAGES)
    np.testing.assert_allclose(cosines, search_all(VECTORS, 5, IMAGES)[0], atol=1e-6)
    assert not (IMAGES[rows] == IMAGES[:, None]).any()
    np.testing.assert_allclose(index.search(VECTORS, k=1)[0], 1, atol=1e-6)
    np.testing.assert_array_equal(index.search(QUERIES, k=3, without=[-1] * 17)[0], index.search(QUERIES, k=3)[0])


def test_cosines_have_the_same_bits_alone_and_among_others() -> None:
    index = WindowIndex(VECTORS, IMAGES)
    together = index.search(QUERIES, k=5)[0]
    alone = np.concatenate([index.search(query[None], k=5)[0] for query in QUERIES])
    np.testing.assert_array_equal(together, alone)


def test_fewer_are_found_when_there_are_fewer() -> None:
    index = WindowIndex(np.eye(3, dtype=np.float32), [0, 0, 1])
    cosines, rows = index.search(np.eye(3, dtype=np.float32)[:1], k=9, without=[0])
    assert cosines.tolist() == [[0.0]]
    assert rows.tolist() == [[2]]


def test_an_approximate_index_is_nearly_right() -> None:
    many = draw(4000, 16, seed=2)
    asked = many[::80] * 0.9 + draw(50, 16, seed=3) * 0.1
    asked = (asked / np.linalg.norm(asked, axis=1, keepdims=True)).astype(np.float32)
    exact = WindowIndex(many, np.arange(4000))
    quick = WindowIndex(many, np.arange(4000), exact_up_to=100)
    assert (exact.is_exact, quick.is_exact) == (True, False)
    wanted, found = exact.search(asked, k=5)[0].mean(1), quick.search(asked, k=5)[0].mean(1)
    assert (found <= wanted + 1e-9).all()
    assert np.abs(found - wanted).mean() < 5e-3
    alone = np.concatenate([quick.search(query[None], k=5)[0] for query in asked])
    np.testing.assert_array_equal(alone, quick.search(asked, k=5)[0])


def test_it_is_saved_and_read_whole(tmp_path) -> None:
    index = WindowIndex(VECTORS, IMAGES)
    index.save(tmp_path / "one", {"normals": "abc"})
    index.save(tmp_path / "one", {"normals": "abc"})  # another process was as quick
    assert [each.name for each in tmp_path.iterdir()] == ["one"]
    again, facts = WindowIndex.load(tmp_path / "one")
    assert facts == {"normals": "abc"}
    assert again.num_images == 75
    for before, after in zip(index.search(QUERIES, k=5), again.search(QUERIES, k=5), strict=True):
        np.testing.assert_array_equal(before, after)


def test_it_can_be_copied_and_sent() -> None:
    for limit in (1000, 100):
        index = WindowIndex(VECTORS, IMAGES, exact_up_to=limit)
        for twin in (copy.deepcopy(index), pickle.loads(pickle.dumps(index))):
            assert twin.is_exact == index.is_exact
            np.testing.assert_array_equal(twin.search(QUERIES, k=5)[0], index.search(QUERIES, k=5)[0])


def test_a_damaged_or_newer_index_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"is missing or damaged.*it is built again"):
        WindowIndex.load(tmp_path / "none")
    WindowIndex(VECTORS, IMAGES).save(tmp_path / "one", {})
    head = tmp_path / "one" / "index.json"
    head.write_text(json.dumps({"format": 9, "facts": {}}))
    with pytest.raises(ValueError, match="has format 9, this version reads 1"):
        WindowIndex.load(tmp_path / "one")
    head.write_text(json.dumps({"format": 1, "facts": {}}))
    (tmp_path / "one" / "windows.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is missing or damaged"):
        WindowIndex.load(tmp_path / "one")


def test_vectors_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`vectors` must be unit rows, got lengths from 2 to 2"):
        WindowIndex(2 * VECTORS, IMAGES)
    with pytest.raises(ValueError, match=r"`images` one number a vector, got \(300, 24\) and \(2,\)"):
        WindowIndex(VECTORS, [1, 2])
    with pytest.raises(ValueError, match="M >= 1"):
        WindowIndex(VECTORS[:0], [])

"""Edits a bundle in every way that a file can go wrong, or be made to; counts what happens.

A tiny bundle's ``bundle.json`` and the headers and bytes of its ``*.safetensors`` are edited by hypothesis: values of
other types and sizes, fields left out and put in, hub names, cut and flipped bytes, deep nesting. A bundle must be
refused with a ValueError or load and work; nothing may ask the network or write a file.

    python benchmarks/fuzz_bundles.py --edits 40000
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import struct
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from anomalib_synth.encoders.text import load_backend
from anomalib_synth.models.bundle import load_bundle, save_bundle
from anomalib_synth.models.captions import CaptionVocabulary
from anomalib_synth.models.dual_encoder import DualEncoder
from anomalib_synth.models.token_transformer import TokenTransformer
from anomalib_synth.models.tokenizer import WindowTokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

MODELS = ("tokenizer", "token_model", "dual_encoder")
_VALUES = st.one_of(
    st.sampled_from(
        [
            None, True, False, "", "x", "scratch", [], {}, [1], {"a": 1}, 0, 1, -1, 2, 64, 1.5, -0.0, 2**31, 2**63,
            10**12, 10**400, float("nan"), float("inf"), "open_clip:hf-hub:org/name", "open_clip:ViT-B-32:openai",
            "../../x", "\0", "\ud800",
            {"name": "open_clip:hf-hub:org/name", "weights_hash": "0" * 32}, [10**12], "F64", "BOOL",
        ]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.recursive(st.none() | st.booleans() | st.integers(), lambda inner: st.lists(inner, max_size=3), max_leaves=4),
)  # fmt: skip
_watched: list[Counter[str]] = []


def make_bundle(folder: Path) -> Path:
    """Write a tiny bundle of random weights."""
    words = CaptionVocabulary(["a", "dark", "scratch", "stain"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = {
            "tokenizer": WindowTokenizer(channels=4, width=8, depth=0, patch=8, strides=(8, 4), codebook_size=4),
            "token_model": TokenTransformer(
                channels=4, codebook_size=4, num_scales=2, frozen_scales=1, vocabulary_size=len(words), dim=8, depth=1,
                heads=1, caption_length=4,
            ),
            "dual_encoder": DualEncoder(vocabulary_size=len(words), dim=4, width=8, caption_length=4),
        }  # fmt: skip
    save_bundle(folder, models, words, {"note": "random weights"}, half=False)
    return folder


@st.composite
def edits(draw: st.DrawFn, content: dict[str, bytes]) -> tuple[str, bytes]:
    """Draw a file of a bundle and what it is made to hold."""
    name = draw(st.sampled_from(sorted(content)))
    data = content[name]
    kind = draw(st.sampled_from(["json", "json", "json", "json", "cut", "flip", "text", "deep"]))
    if kind == "cut":
        return name, data[: draw(st.integers(0, len(data)))]
    if kind == "flip":
        at = draw(st.integers(0, len(data) - 1))
        return name, data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]
    head, weights = _split(name, data)
    if kind == "text":
        return name, _join(name, draw(st.binary(max_size=64)), weights)
    if kind == "deep":
        depth = draw(st.sampled_from([10, 2000, 100_000]))
        return name, _join(name, b"[" * depth + b"]" * depth, weights)
    value = json.loads(head)
    for _ in range(draw(st.integers(1, 3))):
        value = draw(_edited(value))
    return name, _join(name, json.dumps(value).encode("utf-8", "surrogatepass"), weights)


@st.composite
def _edited(draw: st.DrawFn, value: Any) -> Any:
    """Draw a copy of plain data with one edit at any depth."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 5)) == 0:
        return draw(_VALUES)
    key = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
    copy = value.copy()
    action = draw(st.sampled_from(["inside", "inside", "inside", "drop", "add"]))
    if action == "inside":
        copy[key] = draw(_edited(value[key]))
    elif action == "drop":
        copy.pop(key)
    elif isinstance(copy, dict):
        copy[draw(st.sampled_from(["text_encoder", "text_channels", "trust_remote_code", "x", "tokenizer"]))] = draw(
            _VALUES
        )
    else:
        copy.insert(key, draw(_VALUES))
    return copy


def _split(name: str, data: bytes) -> tuple[bytes, bytes]:
    """Return the JSON of a file, and what is behind it."""
    if name.endswith(".json"):
        return data, b""
    (length,) = struct.unpack("<Q", data[:8])
    return data[8 : 8 + length], data[8 + length :]


def _join(name: str, head: bytes, weights: bytes) -> bytes:
    return head if name.endswith(".json") else struct.pack("<Q", len(head)) + head + weights


def use_bundle(folder: Path) -> None:
    """Load everything of a bundle, and compute with it."""
    bundle = load_bundle(folder)
    len(bundle.weights_hash), len(bundle.card)
    backend = load_backend(bundle)
    images = torch.zeros(1, 3, 64, 64)
    z, _ = backend.encode(images)
    backend.find_unknown("a wombat")
    model, words = bundle.token_model(), bundle.vocabulary
    model.read(words.encode(["a dark scratch"], length=model.caption_length))
    model.look(z, torch.ones_like(z[:, :1]))
    dual = bundle.dual_encoder()
    dual.encode_text(words.encode(["a dark scratch"], length=dual.caption_length))
    dual.encode_image(images)


def try_edit(folder: Path, edit: tuple[str, bytes], content: dict[str, bytes], counts: Counter[str]) -> None:
    """Put one edit into the folder, use the bundle, and put the file back."""
    name, data = edit
    counts["edits"] += 1
    (folder / name).write_bytes(data)
    before = _list_files(folder.parent)
    try:
        with torch.no_grad(), watch(counts):
            use_bundle(folder)
        counts["loaded"] += 1
    except ValueError as error:
        counts["refused with ValueError"] += 1
        if str(folder) not in str(error):
            counts["refused without naming the file"] += 1
    except Exception as error:
        counts["errors of other kinds"] += 1
        print(f"{type(error).__name__}: {error} for {name}: {data[:300]!r}")
    finally:
        counts["files outside"] += _list_files(folder.parent) != before
        (folder / name).write_bytes(content[name])


@contextmanager
def watch(counts: Counter[str]) -> Iterator[None]:
    """Count what asks the network or opens a file for writing."""
    _watched.append(counts)
    try:
        yield
    finally:
        _watched.remove(counts)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    for counts in _watched:
        if event in {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname"}:
            counts["network attempts"] += 1
        elif (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ):
            counts["files outside"] += 1
        elif event in {"subprocess.Popen", "os.system", "pickle.find_class"}:
            counts["code run"] += 1


sys.addaudithook(_audit)


def fuzz(number: int, *, seed_of_run: int = 0) -> Counter[str]:
    """Try some edits and return the counts."""
    counts: Counter[str] = Counter()
    parent = Path(tempfile.mkdtemp(prefix="fuzz_bundles_"))
    folder = make_bundle(parent / "bundle")
    content = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    use_bundle(folder)  # what libraries write when they are imported is no edit's doing

    @seed(seed_of_run)
    @settings(max_examples=number, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(edits(content))
    def run(edit: tuple[str, bytes]) -> None:
        try_edit(folder, edit, content, counts)

    try:
        run()
    finally:
        shutil.rmtree(parent)
    return counts


def _list_files(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    counts = fuzz(arguments.edits, seed_of_run=arguments.seed)
    for name in (
        "edits", "refused with ValueError", "loaded", "errors of other kinds", "refused without naming the file",
        "network attempts", "files outside", "code run",
    ):  # fmt: skip
        print(f"{name}: {counts[name]}")


if __name__ == "__main__":
    main()

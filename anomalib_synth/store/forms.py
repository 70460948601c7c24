"""The records of a store beside its manifest: decisions, quarantine, inputs, a filter's verdicts, the head."""

from __future__ import annotations

from typing import Any

from anomalib_synth.store.rules import (
    CONFIG,
    FLAG,
    HASH,
    HASH_OR_EMPTY,
    INSIDE,
    PLAIN,
    POSITIVE,
    TEXT,
    Form,
    Rule,
    is_number,
    is_plain,
    is_text,
    one_of,
    or_none,
    show,
    whole,
)

DECISION = Form(
    name="a decision",
    rules={"id": HASH, "accepted": or_none(FLAG), "time": POSITIVE, "after": whole(0)},
    optional=frozenset({"after"}),
)
QUARANTINED = Form(name="an input in quarantine", rules={"source": TEXT, "reason": TEXT})
INPUT = Form(
    name="an input of the run",
    rules={"name": INSIDE, "content": HASH_OR_EMPTY, "reason": TEXT},
    relation=lambda row: "" if row["content"] or row["reason"] else "has neither `content` nor `reason`",
)
_NORMALS = Form(
    name="the inputs' summary",
    rules={
        "files": whole(0),
        "digest": HASH,
        "unreadable": Rule(
            "reasons by name",
            lambda value: type(value) is dict and all(is_text(n) and is_text(r) for n, r in value.items()),
        ),
    },
    optional=frozenset({"files", "digest", "unreadable"}),
    open_ended=True,
)


def _is_size(value: Any) -> bool:
    """Return whether a value is a side in pixels, a pair of them, or words for them."""
    if type(value) is list:
        return len(value) == 2 and all(_is_size(each) for each in value)
    return (type(value) is int and 1 <= value < 2**31) or (type(value) is str and is_text(value))


_SETTINGS = Form(
    name="the settings of a run",
    rules={
        "algorithm": whole(0),
        "generator": CONFIG,
        "files_digest": HASH_OR_EMPTY,
        "weights_hash": HASH_OR_EMPTY,
        "prepare_digest": HASH_OR_EMPTY,
        "seed": whole(0, 2**63 - 1),
        "image_size": or_none(Rule("a size in pixels", _is_size)),
        "split": one_of("train", "val", "test"),
        "max_normals": whole(1),
        "normals": Rule("an object of plain, finite data", lambda value: type(value) is dict and is_plain(value)),
    },
    optional=frozenset(
        {"algorithm", "generator", "files_digest", "weights_hash", "prepare_digest", "seed", "image_size", "split"}
        | {"max_normals", "normals"}
    ),
    open_ended=True,
)
_HEAD = Form(
    name="the head of a store",
    rules={"format": whole(1), "algorithm": whole(0), "settings": PLAIN},
    optional=frozenset({"algorithm"}),
    open_ended=True,
)


def find_head_fault(head: Any) -> str:
    """Return what is wrong with the contents of ``store.json``, "" when nothing is."""
    if fault := _HEAD.find_fault(head):
        return fault
    if fault := _SETTINGS.find_fault(head["settings"]):
        return f"has settings in which something is wrong: it {fault}"
    fault = _NORMALS.find_fault(head["settings"].get("normals", {}))
    return f"has settings of which `normals` {fault}" if fault else ""


def find_verdict_fault(sample: str, verdict: Any) -> str:
    """Return what is wrong with a filter's verdict about a sample, "" when nothing is."""
    if not HASH.holds(sample):
        return f"has a sample {show(sample)}, which must be {HASH.says}"
    if type(verdict) is not dict or not is_text(verdict.get("reason")):
        return f"has the verdict {show(verdict)} about sample {sample}, which must have a `reason`, a text"
    for name, value in verdict.items():
        if name != "reason" and not (is_text(name) and (value is None or is_number(value))):
            return f"has {show(name)} = {show(value)} about sample {sample}, which must be a finite number"
    return ""

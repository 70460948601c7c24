"""The records of a store besides its manifest: decisions, quarantine, inputs, a filter's judgements."""

from __future__ import annotations

from typing import Any

from anomalib_synth.store.rules import (
    FLAG,
    HASH,
    HASH_OR_EMPTY,
    INSIDE,
    POSITIVE,
    TEXT,
    RecordSchema,
    is_number,
    is_text,
    or_none,
    show,
    whole,
)

DECISION = RecordSchema(
    name="a decision",
    rules={"id": HASH, "accepted": or_none(FLAG), "time": POSITIVE, "after": whole(0)},
    optional=frozenset({"after"}),
)
QUARANTINED = RecordSchema(name="an input in quarantine", rules={"source": TEXT, "reason": TEXT})
INPUT = RecordSchema(
    name="an input of the run",
    rules={"name": INSIDE, "content": HASH_OR_EMPTY, "reason": TEXT},
    relation=lambda row: "" if row["content"] or row["reason"] else "has neither `content` nor `reason`",
)


def find_judgement_fault(sample: str, judgement: Any) -> str:
    """Return what is wrong with a filter's judgement about a sample, "" when nothing is."""
    if not HASH.holds(sample):
        return f"has a sample {show(sample)}, which must be {HASH.says}"
    if type(judgement) is not dict or not is_text(judgement.get("reason")):
        return f"has the judgement {show(judgement)} about sample {sample}, which must have a `reason`, a text"
    for name, value in judgement.items():
        if name != "reason" and not (is_text(name) and (value is None or is_number(value))):
            return f"has {show(name)} = {show(value)} about sample {sample}, which must be a finite number"
    return ""

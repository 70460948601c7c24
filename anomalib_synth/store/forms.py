"""The records of a store beside its manifest: decisions, quarantine, inputs, a filter's verdicts."""

from __future__ import annotations

from typing import Any

from anomalib_synth.store.rules import (
    FLAG,
    HASH,
    HASH_OR_EMPTY,
    INSIDE,
    POSITIVE,
    TEXT,
    Form,
    is_number,
    is_text,
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

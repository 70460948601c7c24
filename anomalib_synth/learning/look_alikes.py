"""The table that `anomalib-synth look_alikes` prints of the samples it drew and kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.learning.missed_samples import ScoredSample, TrainedDetector
    from anomalib_synth.store import Record


def print_look_alikes(
    drawn: Sequence[Record], scored: Sequence[ScoredSample], chosen: Sequence[ScoredSample], trained: TrainedDetector
) -> None:
    """Print how many samples of each type were drawn, visible, missed and kept, and what the detector finds of them."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("type", "visible", "missed", "kept", "of these found", title="Look-alikes and the detector")
    types = sorted({each.record.family for each in scored})
    groups = [(name, [name]) for name in types] + ([("all types", types)] if len(types) > 1 else [])
    for title, names in groups:
        seen, kept = ([each for each in group if each.record.family in names] for group in (scored, chosen))
        found, of_kept = (sum(trained.finds(each.score) for each in group) for group in (seen, kept))
        share = f"{of_kept} ({of_kept / len(kept):.0%})" if kept else "0"
        known = trained.threshold is not None
        missed, share = (str(len(seen) - found), share) if known else ("-", "-")
        table.add_row(escape(title), str(len(seen)), missed, str(len(kept)), share)
    Console().print(table)
    print(f"{len(drawn)} were drawn, {len(scored)} are visible by the generator's checks.")
    if trained.threshold is None:
        print("The detector has no threshold, so its scores alone rank them: anomalib-synth calibrate sets one.")
    elif chosen and all(trained.finds(each.score) for each in chosen):
        print(
            "The detector finds all that are kept, so it misses none of this kind here. More `candidates` may give "
            "some that it misses; fainter ones come by `generate` with a LookAlikeGenerator of less `strength`."
        )

"""A generator that keeps only samples that still look like the product."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

import torch

from anomalib_synth.generators.seeding import RandomStream, hash64
from anomalib_synth.generators.wrapping import WrappingGenerator, check_generator
from anomalib_synth.retrieval.filter import RetrievalFilter
from anomalib_synth.retrieval.index import require_faiss
from anomalib_synth.retrieval.settings import FilterSettings
from anomalib_synth.sample import AnomalySample

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

    from anomalib_synth.generators.base import AnomalyGenerator
    from anomalib_synth.generators.condition import Condition
    from anomalib_synth.generators.prepared import PreparedNormals
    from anomalib_synth.retrieval.filter import Judgement

Mode = Literal["filter", "random_keep"]
_PROBES = 64


class FilteredGenerator(WrappingGenerator):
    """Draws with another generator and keeps what a retrieval filter lets through.

    This is the filter of "Anomaly Detection by Effectively Leveraging Synthetic Images" (arXiv 2512.23227), for samples
    of any generator: see :class:`anomalib_synth.retrieval.RetrievalFilter`. A sample that the filter refuses is drawn
    again with a new seed; after ``budget`` draws the image is given back unchanged, with the last reason. The first
    draw has the sample's own seed, so a sample that passes at once is what the generator alone would have drawn. A draw
    that fails the generator's own checks is not drawn again, as the generator has redrawn it already.

    Provenance names this generator, and as ``attempt`` the draw that was kept; it has ``measured["similarity"]``,
    ``measured["loss_of_similarity"]`` and ``measured["smoothed_visibility"]``.

    Args:
        generator: The generator that draws the samples.
        retrieval: How they are compared with real normals.
        budget: Most draws per sample, >= 1.
        mode: ``"filter"``, or the control ``"random_keep"``, which keeps the same share of the draws, whatever they
            look like, and redraws as often.
        keep_share: Share of the draws that ``"random_keep"`` keeps, in (0, 1]. None measures the share that the filter
            would keep, on 64 draws on the prepared normals.
        index_folder: Where the index of the normals is kept and found again; None builds it in every process.
        seed: Base seed, used when a call names no seeds.

    Raises:
        TypeError: If ``generator`` is not a generator.
        ValueError: If an argument is out of its range; on a call, if there are no prepared normals to compare with.
        ImportError: When it is prepared, if faiss is not installed.

    Example:
        >>> from anomalib_synth.generators import RuleBasedGenerator
        >>> generator = FilteredGenerator(RuleBasedGenerator(["scratch"]), retrieval=FilterSettings(quantile=0.02))
        >>> generator.budget
        4
    """

    def __init__(
        self,
        generator: AnomalyGenerator,
        *,
        retrieval: FilterSettings | None = None,
        budget: int = 4,
        mode: Mode = "filter",
        keep_share: float | None = None,
        index_folder: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        check_generator("generator", generator)
        if budget < 1:
            msg = f"`budget` must be >= 1, got {budget}. 1 draws once and does not try again."
            raise ValueError(msg)
        if mode not in get_args(Mode):
            msg = f"`mode` must be one of {', '.join(get_args(Mode))}, got {mode!r}."
            raise ValueError(msg)
        if keep_share is not None and (mode != "random_keep" or not 0 < keep_share <= 1):
            msg = f"`keep_share` must be in (0, 1] and needs mode 'random_keep', got {keep_share} with {mode!r}."
            raise ValueError(msg)
        self.generator = generator
        self.retrieval = retrieval or FilterSettings()
        self.budget = budget
        self.mode = mode
        self.keep_share = keep_share
        self.index_folder = None if index_folder is None else Path(index_folder)
        # each with the digest of its normals, as the generator may be prepared with others in the meantime
        self._fitted: tuple[str, RetrievalFilter] | None = None
        self._measured_share: tuple[str, float] | None = None

    @property
    def wrapped(self) -> list[AnomalyGenerator]:
        """The generator that draws."""
        return [self.generator]

    @cached_property
    def weights_hash(self) -> str:
        """Digest of the embedder's weights, and of the generator's where it has any."""
        parts = [self.generator.weights_hash, self._empty_filter.embedder.weights_hash]
        return blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()

    @property
    def prepare_digest(self) -> str:
        """Digest of the prepared normals, the embedder and the settings; ``""`` before :meth:`prepare`."""
        if self.prepared is None:
            return ""
        parts = [self.generator.prepare_digest, self._empty_filter.make_key(self.prepared.digest)]
        return blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()

    @property
    def filter(self) -> RetrievalFilter:
        """The filter, fitted to the prepared normals.

        When the first defect of a size is judged, the normals' windows of that size are embedded, or read from
        ``index_folder``.

        Raises:
            ValueError: If there are no prepared normals, or only one.
        """
        if self.prepared is None:
            msg = (
                "FilteredGenerator compares samples with real normals and has none. Call `prepare` with the training "
                "normals; the callbacks, the datamodule and `anomalib-synth generate` do so."
            )
            raise ValueError(msg)
        fitted, digest = self._fitted, self.prepared.digest
        if fitted is None or fitted[0] != digest:
            _ = self._empty_filter.embedder  # loaded here once, so that the fitted copies share it
            self._fitted = fitted = digest, copy(self._empty_filter).fit(self.prepared.donors, digest=digest)
        return fitted[1]

    def prepare(self, normals: Iterable[torch.Tensor]) -> Self:
        """Prepare the generator, and fit the filter to the same normals."""
        require_faiss()
        super().prepare(normals)
        _ = self.filter
        return self

    def use_prepared(self, prepared: PreparedNormals) -> None:
        """Use normals that were measured before, for the generator and for the filter."""
        require_faiss()
        super().use_prepared(prepared)

    @property
    def share(self) -> float:
        """Share of the generator's draws that ``random_keep`` keeps: as given, or measured on the filter."""
        if self.keep_share is not None:
            return self.keep_share
        _ = self.filter  # raises where there are no prepared normals
        prepared = cast("PreparedNormals", self.prepared)
        if self._measured_share is None or self._measured_share[0] != prepared.digest:
            donors = prepared.donors
            seeds = [hash64(self.seed, "keep_share", number) for number in range(_PROBES)]
            drawn = kept = 0
            for number, seed in enumerate(seeds):  # one by one, so that the share does not depend on the batch size
                sample = self.generator(donors[[number % len(donors)]].float() / 255, seeds=[seed])
                drawn += int(sample.accepted.sum())
                kept += sum(judgement.kept for judgement in self._judge(sample).values())
            if not kept:
                msg = (
                    f"`keep_share` cannot be measured: the filter kept none of {drawn} trial samples. Give it as a "
                    "number, or loosen `retrieval`."
                )
                raise ValueError(msg)
            self._measured_share = prepared.digest, kept / drawn
        return self._measured_share[1]

    @cached_property
    def _empty_filter(self) -> RetrievalFilter:
        return RetrievalFilter(self.retrieval, folder=self.index_folder)

    def draw(self, images: torch.Tensor, seeds: list[int], condition: Condition) -> AnomalySample:
        """Draw, judge, and draw again what is refused; see :meth:`AnomalyGenerator.draw`."""
        _ = self.filter  # before anything is drawn
        sample = AnomalySample.unchanged(images, [None] * len(images), "no draw was made")
        pending = list(range(len(images)))
        own = self._origin()
        for attempt in range(self.budget):
            draws = [seeds[row] if attempt == 0 else hash64(seeds[row], "retrieval", attempt) for row in pending]
            asked = condition.take(pending).to_arguments()
            drawn = self.generator(images[pending], seeds=draws, **asked) if pending else sample
            refused = []
            judgements = self._judge(drawn) if pending and self.mode == "filter" else {}
            for place, (row, one) in enumerate(zip(pending, _split(drawn), strict=False)):
                reason, measured = self._decide(one, seeds[row], attempt, judgements.get(place))
                record = replace(one.provenance[0], **own, seed=seeds[row])
                if reason:
                    refused.append(row)
                    reason = f"{record.family}: {reason}"
                    record = replace(record, attempt=-1, family="", params={}, measured={}, prompt="")
                    one = AnomalySample.unchanged(one.source, [record], reason)  # noqa: PLW2901
                elif one.accepted[0]:
                    record = replace(record, attempt=attempt, measured={**record.measured, **measured})
                one.provenance = [record]
                sample.place([row], one)
            pending = refused
        return sample

    def _decide(
        self, one: AnomalySample, seed: int, attempt: int, judgement: Judgement | None
    ) -> tuple[str, dict[str, float]]:
        """Return why a draw is refused, ``""`` if it is not, and what was measured on it."""
        if not bool(one.accepted[0]):
            return "", {}
        if judgement is None:  # random_keep
            kept = RandomStream(hash64(seed, "random_keep", attempt)).unit() < self.share
            return "" if kept else f"left out at random, {self.share:.0%} are kept", {}
        measured = {"similarity": judgement.similarity, "loss_of_similarity": judgement.drop}
        return judgement.reason, {**measured, "smoothed_visibility": judgement.visibility}

    def _judge(self, sample: AnomalySample) -> dict[int, Judgement]:
        """Return the filter's judgement on each row that passed the generator's own checks."""
        rows = sample.accepted.nonzero().flatten().tolist()
        judged = self.filter.judge(sample.source[rows], sample.image[rows], sample.mask[rows]) if rows else []
        return dict(zip(rows, judged, strict=True))


def _split(sample: AnomalySample) -> Iterator[AnomalySample]:
    """Yield the rows of a sample as samples of one."""
    for row in range(len(sample)):
        rows = slice(row, row + 1)
        tensors = {name: getattr(sample, name)[rows] for name in ("source", "image", "mask", "quality", "accepted")}
        lists = {name: getattr(sample, name)[rows] for name in ("caption", "reason", "provenance")}
        yield AnomalySample(**tensors, **lists)

"""The cost of kept samples: time, and money where the price of an hour is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anomalib_synth.store.record import Record


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of the samples of one generator.

    Args:
        generator: Its name, with the generator it wraps: ``FilteredGenerator(RuleBasedGenerator)``.
        samples: Number of samples, those that failed included.
        accepted: Number of samples that are kept.
        device_seconds: Time in seconds of the workers that drew them. A worker has one device: a processor core, or
            the accelerator its generator runs on.
        price_per_hour: Price of an hour of that device, in any currency; None where it is not known.
    """

    generator: str
    samples: int
    accepted: int
    device_seconds: float
    price_per_hour: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds per sample."""
        return self.device_seconds / self.samples

    @property
    def seconds_per_accepted(self) -> float | None:
        """Seconds per accepted sample, time spent on rejected ones included; None where none was accepted."""
        return self.device_seconds / self.accepted if self.accepted else None

    @property
    def price_per_accepted(self) -> float | None:
        """Price of an accepted sample; None where it is not known."""
        if self.price_per_hour is None or self.seconds_per_accepted is None:
            return None
        return self.price_per_hour * self.seconds_per_accepted / 3600

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain data."""
        names = ("seconds", "seconds_per_accepted", "price_per_accepted")
        return {**vars(self), **{name: getattr(self, name) for name in names}}


def measure_costs(
    records: Iterable[Record], kept: Iterable[bool], *, price_per_hour: float | None = None
) -> list[Cost]:
    """Add up what the samples of each generator cost.

    The time of a batch counts evenly for its samples, so in a mixture the samples of a cheap generator carry some of an
    expensive one's time. To compare generators, draw each into a store of its own.

    Args:
        records: Rows of a store.
        kept: Whether each is kept.
        price_per_hour: Price of an hour of the device a worker has, >= 0; None: not known.

    Raises:
        ValueError: If the price is negative.
    """
    check_price(price_per_hour)
    sums: dict[str, tuple[int, int, float]] = {}
    for record, is_kept in zip(records, kept, strict=True):
        name = name_generator(record.generator)
        count, accepted, seconds = sums.get(name, (0, 0, 0.0))
        sums[name] = (count + 1, accepted + bool(is_kept), seconds + record.seconds)
    return [
        Cost(generator=name, samples=count, accepted=accepted, device_seconds=seconds, price_per_hour=price_per_hour)
        for name, (count, accepted, seconds) in sorted(sums.items())
    ]


def describe_costs(costs: Iterable[Cost]) -> str:
    """Return the costs as a table of text.

    Example:
        >>> print(describe_costs([Cost(generator="A", samples=4, accepted=2, device_seconds=6.0, price_per_hour=2.0)]))
        cost by generator  samples  accepted  s/sample  device-s  s/accepted  price/accepted
        A                        4         2     1.500       6.0       3.000         0.00167
    """
    heads = ("cost by generator", "samples", "accepted", "s/sample", "device-s", "s/accepted", "price/accepted")
    costs = list(costs)
    rows = [
        (
            cost.generator,
            f"{cost.samples}",
            f"{cost.accepted}",
            f"{cost.seconds:.3f}",
            f"{cost.device_seconds:.1f}",
            "-" if cost.seconds_per_accepted is None else f"{cost.seconds_per_accepted:.3f}",
            "-" if cost.price_per_accepted is None else f"{cost.price_per_accepted:.3g}",
        )
        for cost in costs
    ]
    columns = len(heads) if any(cost.price_per_hour is not None for cost in costs) else len(heads) - 1
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(columns)]
    lines = []
    for row in (heads, *rows):
        cells = [row[0].ljust(widths[0]), *(row[column].rjust(widths[column]) for column in range(1, columns))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def name_generator(config: dict[str, Any]) -> str:
    """Return the name of the generator of a config, with the one it wraps, and with the mode ``random_keep``.

    Example:
        >>> name_generator({"class_path": "a.FilteredGenerator", "init_args": {"generator": {"class_path": "a.Rules"}}})
        'FilteredGenerator(Rules)'
    """
    arguments = config.get("init_args") or {}
    name = str(config.get("class_path", "")).rpartition(".")[2] or "unknown"
    if arguments.get("mode") == "random_keep":
        name += "[random_keep]"
    inner = arguments.get("generator")
    return f"{name}({name_generator(inner)})" if isinstance(inner, dict) else name


def check_price(price_per_hour: float | None) -> None:
    """Refuse a negative price.

    Raises:
        ValueError: If the price is negative or NaN.
    """
    if price_per_hour is not None and not price_per_hour >= 0:
        msg = f"`price_per_hour` must be >= 0, got {price_per_hour}. Leave it out where it is not known."
        raise ValueError(msg)

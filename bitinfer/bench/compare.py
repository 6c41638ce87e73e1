"""Two sets of records, test by test: how much faster the second is, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bitinfer.bench.record import Record

# What must agree for a ratio to mean anything, and what may be the very thing that is compared.
_SAME_MACHINE = ("cpu", "cores", "memory")
_SETTINGS = ("packing", "head", "kv_cache", "ffn", "weights", "isa", "kernel")


@dataclass(frozen=True)
class Comparison:
    """One test measured twice.

    Attributes:
        test: ``pp512``, ``tg128 @ d1024``.
        ratio: Median of ``new`` by median of ``old``; above 1 is faster.
        ratio_min: Slowest of ``new`` by fastest of ``old``.
        ratio_max: Fastest of ``new`` by slowest of ``old``.
        differs: What is not the same in the two and may be the reason: "packing: t5, i2".
        obstacle: Why the two cannot be compared; "" if they can.
    """

    old: Record
    new: Record
    differs: tuple[str, ...]
    obstacle: str

    @property
    def test(self) -> str:
        """As in `Record.test`."""
        return self.old.test

    @property
    def ratio(self) -> float:
        """Median by median."""
        return self.new.tokens_per_s / self.old.tokens_per_s

    @property
    def ratio_min(self) -> float:
        """The least that the runs allow."""
        return self.new.tokens_per_s_min / self.old.tokens_per_s_max

    @property
    def ratio_max(self) -> float:
        """The most that the runs allow."""
        return self.new.tokens_per_s_max / self.old.tokens_per_s_min

    @property
    def verdict(self) -> str:
        """``faster``, ``slower``, or why neither can be said."""
        if self.obstacle:
            return "not comparable"
        if min(self.old.repeats, self.new.repeats) < 2:
            return "1 run: no spread"
        if self.ratio_min > 1:
            return "faster"
        return "slower" if self.ratio_max < 1 else "within the spread"

    def to_json(self) -> dict[str, Any]:
        """One flat JSON object; ratios are null where the two cannot be compared."""
        ratios = {name: getattr(self, name) for name in ("ratio", "ratio_min", "ratio_max")}
        return {
            "model": self.old.model,
            "test": self.test,
            "threads": self.old.threads,
            "old_tokens_per_s": self.old.tokens_per_s,
            "new_tokens_per_s": self.new.tokens_per_s,
            "old_bytes_by_part": self.old.bytes_by_part,
            "new_bytes_by_part": self.new.bytes_by_part,
            "old_roofline_share": self.old.roofline_share,
            "new_roofline_share": self.new.roofline_share,
            **(dict.fromkeys(ratios) if self.obstacle else ratios),
            "verdict": self.verdict,
            "differs": list(self.differs),
            "obstacle": self.obstacle or None,
        }


def compare(old: list[Record], new: list[Record]) -> tuple[list[Comparison], list[Record]]:
    """Pair the records of the same model shape, test and threads.

    Where a set has several of them (two packings, say), those with the same settings belong
    together, and what is left over is paired in order.

    Returns:
        The pairs in the order of ``old``, and the records of both that have no partner.
    """
    unpaired_old, unpaired_new = list(old), list(new)
    pairs: dict[int, Comparison] = {}
    for settings in (_SETTINGS, ()):
        for record in list(unpaired_old):
            partner = _partner(record, unpaired_new, settings)
            if partner is not None:
                unpaired_old.remove(record)
                unpaired_new.remove(partner)
                pairs[old.index(record)] = _comparison(record, partner)
    return [pairs[index] for index in sorted(pairs)], unpaired_old + unpaired_new


def _partner(record: Record, others: list[Record], settings: tuple[str, ...]) -> Record | None:
    wanted = _identity(record, settings)
    return next((other for other in others if _identity(other, settings) == wanted), None)


def _identity(record: Record, settings: tuple[str, ...]) -> tuple[Any, ...]:
    shape = tuple(sorted(record.shape.items()))
    return (shape, record.test, record.threads, *(getattr(record, name) for name in settings))


def _comparison(old: Record, new: Record) -> Comparison:
    was, now = _facts(old), _facts(new)
    differs = {name: f"{name}: {was[name]}, {now[name]}" for name in was if was[name] != now[name]}
    machine = [differs.pop(name) for name in _SAME_MACHINE if name in differs]
    if "packing" in differs:
        differs.pop("kernel", None)  # it is the packing's
    obstacle = f"another machine: {'; '.join(machine)}" if machine else ""
    if not min(old.tokens_per_s_min, new.tokens_per_s_min):
        obstacle = obstacle or "a speed of 0"
    return Comparison(old, new, tuple(differs.values()), obstacle)


def _facts(record: Record) -> dict[str, Any]:
    """All that may differ between two records of one test."""
    facts = {name: getattr(record, name) for name in ("model", *_SETTINGS)}
    facts |= {name: record.machine[name] for name in ("commit", "compiler", "system")}
    facts |= {name: record.machine[name] for name in ("cpu", "cores")}
    memory = record.machine["memory"]  # a kernel keeps some of it for itself, more or less
    return facts | {"memory": f"{memory / 2**30:.0f} GiB" if memory else None}

"""Write the tables of docs/kernels-by-tier.md from records/tiers; ``make docs`` runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from marked import rewrite
from tables_md import number, table
from turns import Ratio, ratio

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "kernels-by-tier.md"

Record = dict[str, Any]


class Tier:
    """What was measured of a row.

    Args:
        records: Of `tiers.py`, all of one row.
    """

    def __init__(self, records: list[Record]) -> None:
        self.isa: str = records[0]["isa"]
        self._gemvs = [record for record in records if record["family"]]
        self.gemms = [record for record in records if not record["family"]]
        self.threads = sorted({record["threads"] for record in self._gemvs})
        self.kernels = list(dict.fromkeys(map(name, self._gemvs)))

    def gemv(self, kernel: str, threads: int) -> Record:
        """That of a name."""
        (found,) = (r for r in self._gemvs if (name(r), r["threads"]) == (kernel, threads))
        return found

    def default(self, threads: int) -> Record:
        """The GEMV that runs where nothing is asked for."""
        (found,) = (r for r in self._gemvs if r["threads"] == threads and is_default(r))
        return found

    def rival(self, threads: int) -> Record:
        """The fastest of the others that hold ternary weights."""
        others = (
            r
            for r in self._gemvs
            if r["threads"] == threads and r["packing"] != "b1" and not is_default(r)
        )
        return max(others, key=lambda record: record["giga_weights_per_s"])

    def taken(self) -> list[str]:
        """The family that ``auto`` takes for each packing."""
        return list(dict.fromkeys(name(r) for r in self._gemvs if r["family"] == r["auto_family"]))


def name(record: Record) -> str:
    """Packing and family."""
    return f"{record['packing']} {record['family']}"


def is_default(record: Record) -> bool:
    """Whether it is of the packing and the family that the dispatch table names."""
    taken = record["auto_packing"], record["auto_family"]
    return (record["packing"], record["family"]) == taken


def by(over: Record, under: Record) -> Ratio:
    """How much faster one kernel is than another, in the same rounds."""
    return ratio(over["giga_weights_per_s_runs"], under["giga_weights_per_s_runs"])


def span(found: Ratio) -> str:
    """A ratio with its least and largest."""
    return f"{found.median:.2f} ({found.least:.2f}-{found.largest:.2f})"


def verdict(found: Ratio) -> str:
    """Of another kernel by the one that is taken: faster only where it was in every round."""
    if found.least > 1:
        return f"**faster: {span(found)}**"
    return f"{'slower' if found.largest < 1 else 'alike'}: {span(found)}"


def threads_text(threads: int) -> str:
    """With its noun."""
    return f"{threads} thread{'s' * (threads > 1)}"


def defaults(tiers: list[Tier]) -> str:
    """The default of each row beside the best of its other kernels."""
    rows = []
    for tier in tiers:
        for threads in reversed(tier.threads):
            own, rival = tier.default(threads), tier.rival(threads)
            rows.append(
                [
                    f"`{tier.isa}`, {threads_text(threads)}",
                    f"**{name(own)}**",
                    *(own["giga_weights_per_s"], own["gb_per_s"]),
                    f"{name(rival)}: {number(rival['giga_weights_per_s'])}",
                    verdict(by(rival, own)),
                ]
            )
    heading = ["row", "default", "Gw/s", "GB/s", "best of the others, Gw/s", "it by the default"]
    return table(heading, rows)


def slower_families(tiers: list[Tier]) -> str:
    """Where ``auto`` takes the slower family of a packing."""
    lines = []
    for tier in tiers:
        for taken in tier.taken():
            (other,) = (k for k in tier.kernels if k != taken and k.split()[0] == taken.split()[0])
            for threads in tier.threads:
                found = by(tier.gemv(other, threads), tier.gemv(taken, threads))
                if found.least > 1:
                    where = f"`{tier.isa}`, {threads_text(threads)}"
                    lines.append(f"- {where}: {other} is faster than {taken}: {span(found)}")
    if not lines:
        return "Of no packing was the other family faster in every round."
    return "\n".join(["Where the other family was faster in every round:", "", *lines])


def speeds(tiers: list[Tier]) -> str:
    """Every GEMV, with all threads and with one; bold: the family that is taken."""
    rows = []
    for tier in tiers:
        row = [f"`{tier.isa}`"]
        for kernel in tier.kernels:
            rates = (tier.gemv(kernel, t)["giga_weights_per_s"] for t in reversed(tier.threads))
            text = " / ".join(map(number, rates))
            row.append(f"**{text}**" if kernel in tier.taken() else text)
        rows.append(row)
    threads = " / ".join(map(threads_text, reversed(tiers[0].threads)))
    return table([f"Gw/s, {threads}", *tiers[0].kernels], rows)


def gemms(tiers: list[Tier]) -> str:
    """Every GEMM; bold: of the packing that is the default."""
    rows = []
    for tier in tiers:
        row = [f"`{tier.isa}`"]
        for record in tier.gemms:
            text = number(record["giga_weights_per_s"])
            row.append(f"**{text}**" if record["packing"] == record["auto_packing"] else text)
        rows.append(row)
    (first, *_) = tiers[0].gemms
    heading = f"10^9 products/s, {first['m']} tokens, {threads_text(first['threads'])}"
    return table([heading, *(record["packing"] for record in tiers[0].gemms)], rows)


def instructions(tiers: list[Tier]) -> str:
    """Counted instructions of the rows that have them."""
    rows = []
    for tier in tiers:
        counts = [tier.gemv(k, 1)["instructions_per_1000_weights"] for k in tier.kernels]
        if any(counts):
            rows.append([f"`{tier.isa}`", *counts])
    if not rows:
        return "Instructions were not counted in this record."
    return table(["instructions per 1,000 weights", *tiers[0].kernels], rows)


def summary(records: list[Record]) -> str:
    """All tables of a record."""
    isas = dict.fromkeys(record["isa"] for record in records)
    tiers = [Tier([r for r in records if r["isa"] == isa]) for isa in isas]
    return "\n\n".join(
        [
            defaults(tiers),
            f"Every GEMV; in bold the family that is taken. {slower_families(tiers)}",
            speeds(tiers),
            gemms(tiers),
            instructions(tiers),
        ]
    )


def families(records: list[Record]) -> dict[tuple[str, str], str]:
    """The family that ``auto`` took, by row and packing."""
    return {(r["isa"], r["packing"]): r["auto_family"] for r in records}


def changed_since(records: list[Record], newer: list[list[Record]]) -> str:
    """The families that rows of a record take by now, as newer records of other machines show."""
    now = {key: family for found in reversed(newer) for key, family in families(found).items()}
    changed = [
        f"`{isa}` has come to take {packing} {now[isa, packing]}"
        for (isa, packing), family in families(records).items()
        if now.get((isa, packing), family) != family
    ]
    return f"\n\nSince this record {', '.join(changed)}." if changed else ""


def part(records: list[Record], newer: list[list[Record]]) -> str:
    """A machine's section: what was measured on it, and of which matrices."""
    first = records[0]
    where = (
        f"{first['cores']} cores, {first['date'][:10]}, commit {first['commit']}; medians of"
        f" {first['rounds']} rounds in which the kernels of a row took turns. GEMV: {first['n']} x"
        f" {first['k']}, gate and up of {first['shape']}."
    )
    where += changed_since(records, newer)
    return f"### {first['cpu']}\n\n{where}\n\n{summary(records)}"


def machines(folder: Path = HERE / "records" / "tiers") -> list[list[Record]]:
    """The newest record of every processor, the one that was measured last first."""
    files = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    files.sort(key=lambda records: str(records[0]["date"]))
    return list({records[0]["cpu"]: records for records in files}.values())[::-1]


def parts() -> dict[str, str]:
    """What stands between marks, by their name; nothing where there is no record."""
    measured = machines()
    found = [part(records, measured[:i]) for i, records in enumerate(measured)]
    return {"tiers": "\n\n".join(found)} if found else {}


if __name__ == "__main__":
    rewrite(PAGE, parts())

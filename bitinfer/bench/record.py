"""The record of one measurement, and files of records. ``benchmarks/README.md`` has the fields."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bitinfer.errors import RecordError

PARTS = ("ternary", "float", "head", "kv")  # of what is read; float: norms, an embedding row
_MACHINE_FACTS = ("commit", "date", "cpu", "cores", "memory", "compiler", "system")
_NUMBERS = (
    *("tokens", "prompt_tokens", "generated_tokens", "batch", "depth", "threads", "repeats"),
    *("tokens_per_s", "tokens_per_s_min", "tokens_per_s_max", "bytes_per_token"),
    *("gb_per_s", "roofline_gb_per_s", "cores", "memory"),
)


@dataclass(frozen=True)
class Record:
    """One phase of one model on one machine.

    Attributes:
        phase: ``prefill``, ``decode``, or ``prefill+decode``.
        tokens: Tokens of this phase in each repeat: those of the prompt and all generated ones.
        prompt_tokens: Tokens of the prompt that are measured.
        generated_tokens: Tokens after it that are measured, of each sequence.
        batch: Sequences that are generated at once.
        depth: Tokens that the cache held before.
        tokens_per_s: Median of the repeats; beside it the slowest and the fastest.
        tokens_per_s_runs: Every repeat, in the order of time; empty in records that kept none.
        bytes_per_token: Bytes of weights and KV cache that must be read per token.
        bytes_by_part: The same for each of `PARTS`; empty in records that did not split them.
        gb_per_s: ``bytes_per_token * tokens_per_s / 1e9``.
        roofline_gb_per_s: The fastest read of one decoded token's bytes in the same run.
        joules_per_token: Of the processor's counter, over all repeats; None without a counter.
        energy: Which counter, or why there is none.
        ffn: ``dense`` or ``sparse``.
        weights: Where they lie: ``mmap`` or ``copy``.
        kernel: Of this phase's ternary matrices.
        machine: ``machine.machine_facts``.
    """

    phase: str
    tokens: int
    prompt_tokens: int
    generated_tokens: int
    batch: int
    depth: int
    threads: int
    tokens_per_s: float
    tokens_per_s_min: float
    tokens_per_s_max: float
    tokens_per_s_runs: list[float]
    bytes_per_token: int
    bytes_by_part: dict[str, int]
    gb_per_s: float
    roofline_gb_per_s: float
    joules_per_token: float | None
    energy: str
    isa: str
    packing: str
    kernel: str
    head: str
    kv_cache: str
    ffn: str
    weights: str
    model: str
    shape: dict[str, Any]
    warmup: int
    repeats: int
    machine: dict[str, Any]

    @property
    def test(self) -> str:
        """What was measured, as llama-bench writes it: ``pp512``, ``tg128 x8 @ d1024``."""
        parts = [f"pp{self.prompt_tokens}"] * bool(self.prompt_tokens)
        parts += [f"tg{self.generated_tokens}"] * bool(self.generated_tokens)
        batch = f" x{self.batch}" if self.batch > 1 else ""
        return "+".join(parts) + batch + (f" @ d{self.depth}" if self.depth else "")

    @property
    def roofline_share(self) -> float:
        """Share of the memory's speed that was used; a prefill or a batch has other bounds."""
        return self.gb_per_s / self.roofline_gb_per_s

    def part_bytes(self, *parts: str) -> int | None:
        """Bytes per token of some parts together; None if they were not split."""
        if not self.bytes_by_part:
            return None
        return sum(self.bytes_by_part[part] for part in parts)

    def to_json(self) -> dict[str, Any]:
        """One flat JSON object: the machine's facts stand beside the rest."""
        flat: dict[str, Any] = asdict(self)
        machine: dict[str, Any] = flat.pop("machine")
        return flat | machine

    @classmethod
    def from_json(cls, flat: dict[str, Any]) -> Record:
        """The reverse of `to_json`; also reads records from before prompts could be combined.

        Raises:
            KeyError: a field is missing.
        """
        tokens = flat["tokens"]
        filled = {
            "prompt_tokens": tokens if flat["phase"] == "prefill" else 0,
            "generated_tokens": tokens if flat["phase"] == "decode" else 0,
            "batch": 1,
            "depth": 0,
            "tokens_per_s_runs": [],
            "bytes_by_part": {},
            "ffn": "dense",
            "weights": "mmap",
            "joules_per_token": None,
            "energy": "not available: not measured when this record was made",
            **flat,
            "machine": {name: flat[name] for name in _MACHINE_FACTS},
        }
        return cls(**{field.name: filled[field.name] for field in fields(cls)})


def write_records(records: list[Record]) -> str:
    """Records as a JSON list, one field a line."""
    return json.dumps([record.to_json() for record in records], indent=1)


def read_records(path: Path) -> list[Record]:
    """The records of a file, at least one.

    Raises:
        RecordError: the file cannot be read or is no list of records.
    """
    try:
        found = json.loads(path.read_bytes())
    except OSError as cause:
        raise RecordError(f"{path}: {(cause.strerror or str(cause)).lower()}") from None
    except ValueError as cause:
        raise RecordError(f"{path}: expected JSON, got a file that is none ({cause})") from None
    if not isinstance(found, list) or not found:
        raise RecordError(
            f"{path}: expected a list of records as 'bitinfer bench --json {path.name}' writes it,"
            f" got {'an empty list' if found == [] else type(found).__name__}"
        )
    records = []
    for index, flat in enumerate(found):
        try:
            record = Record.from_json(flat)
        except KeyError as cause:
            missing = cause.args[0]
            raise RecordError(f"{path}: record {index}: expected the field {missing!r}") from None
        except TypeError:
            raise RecordError(f"{path}: record {index}: expected an object of fields") from None
        _check_types(record.to_json(), f"{path}: record {index}")
        records.append(record)
    return records


def _check_types(flat: dict[str, Any], where: str) -> None:
    for name in _NUMBERS:
        value = flat[name]
        if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise RecordError(f"{where}: {name}: expected a number of at least 0, got {value!r}")
    if not isinstance(flat["shape"], dict):
        raise RecordError(f"{where}: shape: expected an object, got {flat['shape']!r}")
    parts = flat["bytes_by_part"]
    if parts != {} and not (
        isinstance(parts, dict)
        and set(parts) == set(PARTS)
        and all(isinstance(num_bytes, int) for num_bytes in parts.values())
    ):
        raise RecordError(
            f"{where}: bytes_by_part: expected bytes of {', '.join(PARTS)}, got {parts!r}"
        )

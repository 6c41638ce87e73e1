"""The cells of the scaling study: which model shape, row, threads, context and batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from on_paper import bytes_per_token, spec_of
from random_model import SHAPES, Shape

CONTEXTS = (128, 256, 512, 1024, 2048, 4096)
BATCHES = (1, 2, 4, 8, 16, 32)
PROMPT, GENERATED = 128, 16
MOST_CACHE_BYTES = 10 << 30  # of all sequences of a batch
STUDIED = {  # name in the study -> shape
    "0.7B": "bitnet-700m",
    "2B": "bitnet-2b-4t",
    "3B": "bitnet-3b",
    "8B": "llama-8b",
}


@dataclass(frozen=True)
class Cell:
    """One measurement: a prompt of `PROMPT`, or `GENERATED` tokens of each sequence.

    Attributes:
        shape: As the study calls it: ``2B``.
        isa: Row of the dispatch table.
        threads: Threads.
        context: Tokens before what is generated; 0 for a prompt.
        batch: Sequences at once; 0 for a prompt.
    """

    shape: str
    isa: str
    threads: int
    context: int
    batch: int

    @property
    def name(self) -> str:
        """``2B/amx/t2/c128/b8`` or ``2B/amx/t2/prompt``."""
        what = f"c{self.context}/b{self.batch}" if self.batch else "prompt"
        return f"{self.shape}/{self.isa}/t{self.threads}/{what}"


def study_shape(name: str) -> Shape:
    """A shape of the study, with room for the longest context."""
    shape = SHAPES[STUDIED[name]]
    room = max(CONTEXTS) + 2 * GENERATED
    return Shape({**shape.config, "max_position_embeddings": room}, shape.sub_norms)


def cells(isas: list[str], most_threads: int) -> list[Cell]:
    """All cells; from the best row with all threads, a short context and one sequence one goes out.

    Along the rows and threads; along contexts and batches; and for the 2B shape to every context
    with every batch. Cells whose caches do not fit are left out.
    """
    found = dict.fromkeys(
        cell
        for shape in STUDIED
        for cell in _of_shape(shape, isas, most_threads)
        if cell.batch * (cell.context + GENERATED) * _position_bytes(shape) <= MOST_CACHE_BYTES
    )
    return list(found)


def _of_shape(shape: str, isas: list[str], most_threads: int) -> Iterator[Cell]:
    best, near = isas[0], CONTEXTS[0]
    for isa in isas:
        for threads in dict.fromkeys((most_threads, 1)):
            yield Cell(shape, isa, threads, 0, 0)
            yield Cell(shape, isa, threads, near, 1)
        yield Cell(shape, isa, most_threads, near, 8)
    for context in CONTEXTS:
        batches = BATCHES if context == near or shape == "2B" else (1,)
        for batch in batches:
            yield Cell(shape, best, most_threads, context, batch)


def _position_bytes(shape: str) -> int:
    """Of one position of an f16 cache."""
    return bytes_per_token(spec_of(study_shape(shape)), "t5")["kv_per_position"]

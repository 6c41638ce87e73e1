"""Batches on many hosts: Ray Data's actors answer the rows, the driver keeps what they said.

Ray reads no files here and writes none: the driver does, by the journal of ``bitinfer batch``. So
both ask the same of a row, and go on alike where one was cut off.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import ray
import ray.data

from bitinfer.batch.journal import Journal
from bitinfer.batch.rows import Line, Rows, json_lines
from bitinfer.batch.run import Progress, Report, begun, finished, partial, settings, write_lines
from bitinfer.batch.runner import Runner
from bitinfer.model import Model
from bitinfer.ray.parquet import parquet_lines, write_parquet
from bitinfer.runtime import default_model
from bitinfer.serve.limits import SLOTS

Columns = Mapping[str, Any]


class RowAnswerer:
    """A class for ``Dataset.map_batches``: answers the rows of a block, all at once.

    In: columns ``number`` (int) and ``row`` (bytes, JSON as in ``bitinfer batch``). Out: ``answer``
    (bytes, a line of its output).
    """

    def __init__(
        self,
        model: str,
        *,
        name: str | None = None,
        slots: int = SLOTS,
        defaults: Mapping[str, Any] | None = None,
        load: Mapping[str, Any] | None = None,
    ) -> None:
        """Load the model; the arguments are those of `run_batch`."""
        self._model = Model.load(model, **(load or {}))
        name = name or self._model.path.name
        self._runner = Runner(self._model, slots=slots, name=name, defaults=defaults)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def __call__(self, block: Columns) -> dict[str, Any]:
        """Answer a block; may be called from several threads."""
        lines = list(zip(block["number"].to_pylist(), block["row"].to_pylist(), strict=True))
        answers = asyncio.run_coroutine_threadsafe(self._answers(lines), self._loop).result()
        return {"answer": answers}

    async def _answers(self, lines: Iterable[Line]) -> list[bytes]:
        return await asyncio.gather(*(self._runner.answer(*line) for line in lines))


def run_batch(
    source: Path,
    output: Path,
    *,
    model: str | None = None,
    actors: int = 1,
    threads: int = 1,
    name: str | None = None,
    slots: int = SLOTS,
    defaults: Mapping[str, Any] | None = None,
    load: Mapping[str, Any] | None = None,
    report: Report = lambda progress: None,
) -> Progress:
    """Answer each row of ``source`` once, on the cluster that Ray is connected to.

    Args:
        source: JSON lines, or Parquet if it is named ``.parquet``; here, as ``output`` is.
        output: Like that of ``bitinfer.batch.run.run_batch``; Parquet if it is named so.
        model: A folder that each host has, or a name; None: the embedded model.
        actors: Processes that answer, wherever Ray has room for them.
        threads: Of each; so many CPUs it takes from Ray.
        name: What rows may call the model; None: as its folder.
        slots: Most replies that each actor makes at once.
        defaults: Fields for chats and completions that lack them.
        load: More of what `Model.load` takes. Unless it says otherwise, weights stay mapped, so
            that the actors of a host share their pages.
        report: Called at the beginning and after each row.

    Returns:
        How it ended; rows that cannot be answered have failed and do not end the batch.

    Raises:
        BatchError: see ``bitinfer.batch.run.run_batch``.
        OSError: a file cannot be read or written.
    """
    rows = Rows(source.name, lambda: _lines(source))
    if (ended := finished(rows, output, _lines)) is not None:
        return ended
    options = dict(defaults or {})
    name_or_path = str(model or default_model())
    loading = {"weights": "mmap", **(load or {}), "num_threads": threads}
    with Model.load(name_or_path, **loading) as here:
        known = settings(here, options)
    given = {"name": name, "slots": slots, "defaults": options, "load": loading}
    with closing(Journal(partial(output), rows, known)) as journal:
        progress = begun(rows, journal)
        report(progress)
        todo = (line for line in rows if line[0] not in journal)
        blocks = [ray.put(block) for block in _blocks(todo, slots)]
        for answer in _answers(blocks, actors, threads, name_or_path, given) if blocks else ():
            progress.count(journal.add(answer))
            report(progress)
        write = write_parquet if output.suffix == ".parquet" else write_lines
        write(output, journal.in_order())
        journal.remove()
    return progress


def _lines(path: Path) -> Iterator[Line]:
    return parquet_lines(path) if path.suffix == ".parquet" else json_lines(path)


def _blocks(lines: Iterator[Line], length: int) -> Iterator[pyarrow.Table]:
    """Tables of ``length`` rows: what an actor answers at a time, and again if it dies."""
    while block := list(islice(lines, length)):
        numbers, texts = zip(*block, strict=True)
        yield pyarrow.table({"number": numbers, "row": pyarrow.array(texts, pyarrow.binary())})


def _answers(
    blocks: list[ray.ObjectRef[pyarrow.Table]],
    actors: int,
    threads: int,
    model: str,
    given: Mapping[str, Any],
) -> Iterator[bytes]:
    """Answers as they come; Ray starts an actor that died again, with the block that it had."""
    dataset = ray.data.from_arrow_refs(blocks).map_batches(
        RowAnswerer,
        fn_constructor_args=(model,),
        fn_constructor_kwargs=dict(given),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=threads,
        compute=ray.data.ActorPoolStrategy(
            size=actors,
            max_concurrent_calls_per_actor=2,  # blocks: the next begins while one comes to its end
            enable_true_multi_threading=True,
        ),
    )
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield from table["answer"].to_pylist()

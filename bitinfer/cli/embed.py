"""``bitinfer embed``: a vector of each text, as JSON lines, a NumPy file, or a table of cosines."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bitinfer.cli.options import THREADS, Sections
from bitinfer.cli.text import printable, proper

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NAME_COLUMNS, _NUMBER_COLUMNS = 24, 7  # of a text and of a cosine in the table


@click.command(
    cls=Sections,
    epilog="""\b
Examples:
  bitinfer embed MODEL "A cat sat." "A kitten was sitting."
  bitinfer embed MODEL --file texts.txt -o vectors.npy
  cat texts.txt | bitinfer embed MODEL --prompt-name query | jq -c .embedding
  bitinfer embed MODEL --similarity "A cat sat." "A kitten sat." "Rain."

\b
Without TEXT and --file, each line of stdin is a text. The texts and their
vectors are in the same order; a .npy file holds float32 (texts, hidden_size).""",
)
@click.argument("model")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option(
    "-f",
    "--file",
    "files",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="File with a text in each line (repeatable)",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write to FILE (.npy or .jsonl) instead of stdout",
)
@click.option("--similarity", is_flag=True, help="Print how alike the texts are: their cosines")
@click.option(
    "--pooling",
    type=click.Choice(["last", "mean", "cls"]),
    help="Token that stands for a text, or their mean [default: as the model's files say]",
)
@click.option("--normalize/--no-normalize", default=None, help="To unit length [default: the same]")
@click.option("--prompt-name", metavar="NAME", help="The model's prompt to put before each text")
@click.option("--truncate", is_flag=True, help="Cut texts that are too long")
@THREADS
@click.pass_context
def embed(ctx: click.Context, /, **options: Any) -> None:
    """Turn texts into vectors with MODEL (path or name); see docs/embeddings.md."""
    output, similarity = options.pop("output"), options.pop("similarity")
    if similarity and output is not None:
        raise click.UsageError("--similarity: --output does not go with it", ctx=ctx)
    if output is not None and output.suffix not in (".npy", ".jsonl"):
        raise click.UsageError(f"--output: expected .npy or .jsonl, got {output.name!r}", ctx=ctx)
    texts = _texts(ctx, options.pop("texts"), options.pop("files"))
    from bitinfer.cli.model_argument import text_model_folder
    from bitinfer.model import Model

    folder, threads = text_model_folder(options.pop("model")), options.pop("threads")
    with Model.load(folder, num_threads=threads, progress=sys.stderr.isatty()) as model:
        for note in model.engine.notes:
            click.echo(f"note: {note}", err=True)
        vectors = model.embed(texts, **options)
    if similarity:
        _print_cosines(texts, vectors)
    elif output is None:
        for line in _lines(texts, vectors):
            click.echo(line)
    else:
        _write(output, texts, vectors)


def _texts(ctx: click.Context, texts: Sequence[str], files: Sequence[Path]) -> list[str]:
    """The arguments, then the lines of the files; without either those of stdin."""
    found = list(texts)
    for file in files:
        found += _split(file.read_text(encoding="utf-8", errors="replace"))
    if not texts and not files:
        if sys.stdin.isatty():
            raise click.UsageError("expected TEXT, --file or lines on stdin", ctx=ctx)
        found = _split(sys.stdin.read())
    return [proper(text) for text in found]


def _split(lines: str) -> list[str]:
    return lines.removesuffix("\n").split("\n") if lines else []


def _lines(texts: Sequence[str], vectors: NDArray[np.float32]) -> list[str]:
    """A JSON object for each text; the numbers are the shortest that name their float32."""
    return [
        json.dumps({"text": text, "embedding": [float(str(v)) for v in vector]}, ensure_ascii=False)
        for text, vector in zip(texts, vectors, strict=True)
    ]


def _write(output: Path, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
    import numpy as np

    from bitinfer.formats.new_file import new_file

    with new_file(output) as file:
        if output.suffix == ".npy":
            np.save(file, vectors)
        else:
            file.writelines(f"{line}\n".encode() for line in _lines(texts, vectors))
    click.echo(f"wrote {output}: {len(vectors)} vectors of {vectors.shape[1]} numbers", err=True)


def _print_cosines(texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
    import numpy as np

    from bitinfer.cli.table import console, print_table

    to = console()
    most = (to.width - _NAME_COLUMNS) // _NUMBER_COLUMNS
    if len(texts) > most:
        raise click.UsageError(
            f"--similarity: expected at most {most} texts in {to.width} columns, got {len(texts)}"
        )
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosines = (vectors / lengths) @ (vectors / lengths).T
    names = [f"{i + 1} {_short(text)}" for i, text in enumerate(texts)]
    rows = [["", *(str(i + 1) for i in range(len(texts)))]]
    rows += [
        [name, *(f"{cosine:.3f}" for cosine in row)]
        for name, row in zip(names, cosines, strict=True)
    ]
    print_table(rows, to, left=[""])


def _short(text: str) -> str:
    plain = printable(text).replace("\n", " ")
    room = _NAME_COLUMNS - 6
    return plain if len(plain) <= room else plain[: room - 1] + "…"

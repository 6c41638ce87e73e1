"""How often the likeliest token is that of torch's fp64: ours, and torch's fp32, on a real model.

    .venv/bin/python benchmarks/fp64_agreement.py --record       # after `make oracle`; half an hour

The model is SmolLM2-135M-Instruct made ternary, which was not trained for it and is chaotic: one
flipped int8 code moves everything after it. The texts are those of tests/golden/smollm2_ids.json
and CPython's documentation (pydoc_data), cut into pieces that see nothing of each other. `--ties`
keeps the tokens that `without_ties` of tests/oracle/smollm2.py leaves out, and tells why it does.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import sys
import tempfile
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
from bench_model import HERE, write_record

from bitinfer.convert import convert
from bitinfer.engine import Engine
from bitinfer.machine import machine_facts
from bitinfer.tokenizer import Tokenizer

LENGTH = 60  # tokens of a piece
REPORTED = 10  # pieces between two lines of output


def pieces(documents: list[list[int]], count: int) -> list[list[int]]:
    """The first piece of each document, then the second of each that has one, and so on."""
    rounds = itertools.zip_longest(
        *([d[at : at + LENGTH] for at in range(0, len(d) - LENGTH + 1, LENGTH)] for d in documents)
    )
    return list(itertools.islice(filter(None, itertools.chain(*rounds)), count))


def summary(right: list[Any]) -> dict[str, Any]:
    """Of bool (2, LENGTH) for each piece: whether ours and torch's fp32 chose fp64's token.

    Positions of a piece depend on each other, so the error is that of the mean over pieces.
    """
    shares = np.stack(right).mean(axis=2)
    difference = shares[:, 0] - shares[:, 1]
    return {
        "positions": len(right) * LENGTH,
        "ours": float(shares[:, 0].mean()),
        "torch_fp32": float(shares[:, 1].mean()),
        "difference": float(difference.mean()),
        "standard_error": float(difference.std(ddof=1) / len(right) ** 0.5),
    }


def measure(count: int, ties: bool) -> dict[str, Any]:
    """Run the three models over ``count`` pieces."""
    import smollm2
    import torch

    torch.set_num_threads(1)
    fp32, fp64 = smollm2.oracle(torch.float32), smollm2.oracle(torch.float64)
    with tempfile.TemporaryDirectory() as work:
        source, packed = smollm2.FOLDER / smollm2.NAME, Path(work) / "packed"
        convert(source, packed, head="source", ternarize="absmean")
        encode = Tokenizer.load(packed, vocab_size=smollm2.VOCAB_SIZE).encode
        engine = Engine.load(packed, kv_cache="f32", head="source", num_threads=1)
    documents = [[i for _, ids in smollm2.IDS for i in ids], *map(encode, topics.values())]
    if not ties:
        documents = [smollm2.without_ties(ids, fp64) for ids in documents]
    right = []
    for piece in pieces(documents, count):
        best = fp64.logits(piece).argmax(1)
        right.append([model.logits(piece).argmax(1) == best for model in (engine, fp32)])
        if len(right) % REPORTED == 0:
            print(summary(right), flush=True)
    return {"model": smollm2.NAME, "ties": ties, **summary(right)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--pieces", type=int, default=200, help=f"of {LENGTH} tokens [200]")
    parser.add_argument("--ties", action="store_true", help="keep tokens whose first codes tie")
    parser.add_argument("--record", action="store_true", help="add a record to records/fp64")
    options = parser.parse_args()
    sys.path[:0] = [str(HERE.parent / "tests" / "oracle"), str(HERE.parent / "tests")]
    facts = {**machine_facts(HERE), "text": f"pydoc_data of Python {platform.python_version()}"}
    row = {**measure(options.pieces, options.ties), **facts}
    if options.record:
        print(write_record([row], "fp64", "-ties" if options.ties else ""))


if __name__ == "__main__":
    main()

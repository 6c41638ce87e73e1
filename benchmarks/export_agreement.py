"""How often llama.cpp's likeliest next token is ours, for models exported as GGUF.

    pip install 'bitinfer[peers]'
    python benchmarks/export_agreement.py --text FILE --record

Both programs run over the same windows of a text, every position with the tokens before it: ours as
exactly as it can (f32 cache, the checkpoint's own head), llama.cpp as it comes. It gives each 256
activations an int8 scale of their own, the models here one a token, so the logits differ.
Without MODEL: three models of random weights, which tell whether every tensor is where it belongs.
`--page` writes the table of docs/export.md instead, from the records.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bench_model import HERE, write_record
from llama import Llama, llama_name, require_llama
from marked import rewrite
from random_model import SHAPES, Shape, write_random_model

from bitinfer import Model, export_gguf
from bitinfer.engine import Engine
from bitinfer.machine import machine_facts

PAGE = HERE.parent / "docs" / "export.md"
KINDS = ("tq1_0", "tq2_0")  # those that llama.cpp reads
WINDOW = 256  # positions that share a context
SMALL = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 1024,
    "vocab_size": 4096,
    "bos_token_id": 4094,
    "eos_token_id": 4095,
}
# What a model of random weights is -> shape of its family, and whether q and k have norms.
RANDOM = {
    "random, of llama's kind": ("llama-8b", False),
    "random, of Qwen3's kind": ("llama-8b", True),
    "random, with sub-norms and silu": ("bitnet-700m", False),
}
COLUMNS = ("model", "architecture", "type", "positions", "top-1 equal", "in top 5", "correlation")


def models(named: list[Path], work: Path) -> Iterator[tuple[str, Path]]:
    """What each model is, and its folder; those of random weights are written to ``work``."""
    for number, (what, (name, qk_norm)) in enumerate({} if named else RANDOM.items()):
        real = SHAPES[name]
        out = work / f"random-{number}"
        small = Shape({**real.config, **SMALL}, real.sub_norms, qk_norm)
        write_random_model(small, out, packing="i2", head="source")
        yield what, out
    for model in named:
        yield model.name, model


def compare(what: str, model: Path, text: str, positions: int, work: Path) -> Iterator[Any]:
    """A row for each type."""
    with Model.load(model) as loaded:
        ids = loaded.tokenizer.encode(text[: 8 * positions], add_special_tokens=True)[:positions]
    windows = [ids[at : at + WINDOW] for at in range(0, len(ids), WINDOW)]
    engine = Engine.load(model, kv_cache="f32", head="source")
    ours = np.concatenate([engine.logits(window) for window in windows])
    best = ours.argmax(axis=1)
    for kind in KINDS:
        exported = export_gguf(model, work / "model.gguf", kind=kind, force=True)
        llama = Llama(exported.path, threads=2, context=WINDOW)
        theirs = np.concatenate([llama.logits(window) for window in windows])
        top5 = np.argpartition(theirs, -5, axis=1)[:, -5:]
        yield {
            "model": what,
            "architecture": exported.architecture,
            "type": kind,
            "positions": len(ids),
            "top1_equal": float((best == theirs.argmax(axis=1)).mean()),
            "top5_holds": float((best[:, None] == top5).any(axis=1).mean()),
            "logits_correlation": float(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]),
        }


def cells(row: dict[str, Any]) -> list[str]:
    """A row under ``COLUMNS``."""
    shares = [f"{row[name]:.1%}" for name in ("top1_equal", "top5_holds")]
    names = [str(row[name]) for name in ("model", "architecture", "type", "positions")]
    return [*names, *shares, f"{row['logits_correlation']:.5f}"]


def parts(folder: Path = HERE / "records" / "export") -> dict[str, str]:
    """What stands between marks of the page: the newest row of each model, type and note."""
    files = sorted((json.loads(path.read_text()) for path in folder.glob("*.json")), key=_date)
    newest = {(row["model"], row["type"], row["note"]): row for rows in files for row in rows}
    if not newest:
        return {}
    last = list(newest.values())[-1]
    lines = [f"| {' | '.join(COLUMNS)} |", "| --- | --- | --- | ---: | ---: | ---: | ---: |"]
    for row in newest.values():
        named = {**row, "model": row["model"] + (f" ({row['note']})" if row["note"] else "")}
        lines.append(f"| {' | '.join(cells(named))} |")
    where = f"{last['program']}, text {last['text']}, {last['date'][:10]}, commit {last['commit']}."
    return {"agreement": f"{where}\n\n" + "\n".join(lines)}


def _date(rows: list[dict[str, Any]]) -> str:
    return str(rows[0]["date"])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL")
    parser.add_argument("--text", type=Path, metavar="FILE")
    parser.add_argument("--positions", type=int, default=1024, help="of the text [1024]")
    parser.add_argument("--note", default="", help="kept in the record: what is unusual here")
    parser.add_argument("--record", action="store_true", help="add a record to records/export")
    parser.add_argument("--page", action="store_true", help="write the table of docs/export.md")
    options = parser.parse_args()
    if options.page:
        rewrite(PAGE, parts())
        return
    if options.text is None:
        parser.error("--text: expected a file")
    require_llama()
    text = options.text.read_text(encoding="utf-8")
    facts = {**machine_facts(HERE), "program": llama_name(), "text": options.text.name}
    facts["note"] = options.note
    rows = []
    print(*COLUMNS, sep="\t")
    with tempfile.TemporaryDirectory() as work:
        for what, model in models(options.models, Path(work)):
            for row in compare(what, model, text, options.positions, Path(work)):
                print(*cells(row), sep="\t", flush=True)
                rows.append({**row, **facts})
    if options.record:
        print(write_record(rows, "export", "-with-note" if options.note else ""))


if __name__ == "__main__":
    main()

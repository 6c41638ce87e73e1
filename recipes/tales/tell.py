"""Write new stories as the teacher tells them, drawn from its probabilities.

    python recipes/tales/tell.py TEACHER TEXT OUT TOKENS

TEACHER is a Hugging Face folder of full precision that has learned the stories of TEXT. A new one
has the first words of one of these, after the request that stands there, if there is one. What
stands in OUT stays, and stories are added until it has TOKENS tokens (kill it at any time). A story
that has no end, or says a sentence twice, is left out.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, AutoModelForCausalLM, PreTrainedModel

from bitinfer.text_file import BEGIN, END, read_documents
from bitinfer.train.memory import keep_freed_memory

AT_ONCE = 256  # stories
OPENING = 5  # tokens that a story has from another
LONGEST = 448  # tokens of one
TEMPERATURE, TOP_K, TOP_P = 0.75, 64, 0.95
REPLY = "<|assistant|>"
_NAME = "one query for each group"


def repeats(story: str) -> bool:
    """Whether it says a sentence twice."""
    sentences = [part for part in re.split(r"(?<=[.!?])\s+", story) if len(part) > 8]
    return len(set(sentences)) < len(sentences)


class Cache:
    """Keys and values of stories that all stand at the same token."""

    def __init__(self, layers: int) -> None:
        """Begin without any."""
        self.kept: list[list[Tensor]] = [[] for _ in range(layers)]
        self.length = 0  # tokens before the one that is computed

    def get_seq_length(self, *_: object) -> int:
        """Tokens so far."""
        return self.length

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: object) -> tuple[Tensor, Tensor]:
        """Add a token's, each ``(stories, heads, 1, head_dim)``; return those of all tokens."""
        new = (keys, values)
        if not self.kept[layer]:
            self.kept[layer] = [x.new_empty(*x.shape[:2], LONGEST, x.shape[3]) for x in new]
        for all_tokens, x in zip(self.kept[layer], new, strict=True):
            all_tokens[:, :, self.length] = x[:, :, 0]
        first, second = (x[:, :, : self.length + 1] for x in self.kept[layer])
        return first, second

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the stories."""
        self.kept = [[x[rows] for x in layer] for layer in self.kept]


def attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, _: object, **kwargs: float
) -> tuple[Tensor, None]:
    """Attention of one new token: the heads of a group are the queries of one product."""
    groups = query.view(query.shape[0], key.shape[1], -1, query.shape[3])
    scale = kwargs["scaling"]
    found = functional.scaled_dot_product_attention(groups, key, value, scale=scale)
    return found.reshape(query.shape).transpose(1, 2), None


def draw(logits: Tensor) -> Tensor:
    """One token of each row ``(stories, vocabulary)``."""
    likely, ids = (logits.float() / TEMPERATURE).softmax(-1).topk(TOP_K)
    likely[likely.cumsum(-1) - likely > TOP_P] = 0
    return ids.gather(-1, torch.multinomial(likely, 1))


@torch.inference_mode()
def tell(model: PreTrainedModel, openings: Tensor, end: int) -> list[list[int]]:
    """The tokens of the stories that begin as ``(stories, tokens)`` do and come to an end."""
    cache = Cache(model.config.num_hidden_layers)
    told = openings
    done: list[list[int]] = []
    for length in range(LONGEST):
        cache.length = length
        where = torch.full((len(told), 1), length)
        new = told[:, length : length + 1]
        logits = model(input_ids=new, position_ids=where, past_key_values=cache).logits[:, -1]
        if length + 1 < openings.shape[1]:
            continue
        told = torch.cat([told, draw(logits)], 1)
        ended = (told == end).any(1)
        if ended.sum() * 8 >= len(told) or length == LONGEST - 1:
            done += [ids[1 : ids.index(end)] for ids in told[ended].tolist()]
            told = told[~ended]
            cache.keep(~ended)
        if not len(told):
            break
    return done


def load(folder: Path) -> tuple[PreTrainedModel, Tokenizer]:
    """The teacher and its tokenizer."""
    AttentionInterface.register(_NAME, attend)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation=_NAME
    )
    return model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))


def openings(text: Path, tokenizer: Tokenizer) -> dict[int, list[list[int]]]:
    """How stories of a text begin, by the number of these tokens: the mark, a request, words."""
    found: dict[int, list[list[int]]] = {}
    for document in read_documents(text):
        request, mark, story = document.rpartition(REPLY)
        asked = tokenizer.encode(BEGIN + request + mark, add_special_tokens=False).ids
        words = tokenizer.encode(story, add_special_tokens=False).ids[:OPENING]
        if len(words) == OPENING:
            found.setdefault(len(asked) + OPENING, []).append(asked + words)
    return {n: rows for n, rows in found.items() if len(rows) >= AT_ONCE}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("tokens", type=int)
    args = parser.parse_args()
    keep_freed_memory()
    model, tokenizer = load(args.teacher)
    known = list(read_documents(args.out)) if args.out.exists() else []
    count = sum(len(tokenizer.encode(text).ids) for text in known)
    rng = random.Random(len(known))
    torch.manual_seed(len(known))
    first = openings(args.text, tokenizer)
    sizes = [len(rows) for rows in first.values()]
    while count < args.tokens:
        before = time.monotonic()
        (alike,) = rng.choices(list(first.values()), sizes)
        drawn = torch.tensor(rng.sample(alike, AT_ONCE))
        told = tell(model, drawn, tokenizer.token_to_id(END))
        stories = [tokenizer.decode(ids, skip_special_tokens=False) for ids in told]
        stories = [story for story in stories if not repeats(story)]
        with args.out.open("a", encoding="utf-8") as file:
            file.write("".join(f"{BEGIN}{story}{END}\n" for story in stories))
        new = sum(len(tokenizer.encode(story).ids) for story in stories)
        count += new
        rate = new / (time.monotonic() - before)
        print(f"{count} tokens, {len(stories)} stories more, {rate:.0f} tokens/s", flush=True)


if __name__ == "__main__":
    main()

"""Two small tokenizers: the embedded byte-level one, and one of SentencePiece's kind."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer as Backend, decoders, models, pre_tokenizers

import bitinfer
from bitinfer.tokenizer import Tokenizer

TEXTS = (
    "plain words",
    "  leading and  double spaces",
    "ok 👩‍👩‍👧 family",
    "中文字符，日本語",
    "e\u0301 a\u0308\u0323 combining",
    "🇩🇪🏳️‍🌈",
    "\n\ttabs\n\n",
    "\ufffd kept \ufffd",
)


def byte_level() -> Tokenizer:
    return Tokenizer.load(
        bitinfer.default_model(), vocab_size=4096, bos_token_id=1, eos_token_ids=[2]
    )


def sentence_piece() -> Tokenizer:
    """A small Llama-2-like tokenizer: byte fallback, spaces as ▁, one leading space dropped."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    for piece in [*pieces, *"▁abcdeilnorst<>/", "▁a", "or", "▁w", "中"]:
        vocab[piece] = len(vocab)
    merges = [("▁", "a"), ("o", "r")]
    backend = Backend(
        models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens(["<s>", "</s>"])
    return Tokenizer(backend, bos_token_id=1, eos_token_ids=[2], settings={"add_bos_token": True})


BYTE_LEVEL, SENTENCE_PIECE = byte_level(), sentence_piece()
both = pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, SENTENCE_PIECE], ids=["bytes", "pieces"])

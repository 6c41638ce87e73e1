"""Logprobs as OpenAI's API writes them, for chat and for plain completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bitinfer.sampling import TokenLogprob
from bitinfer.tokenizer import Tokenizer


def token_text(tokenizer: Tokenizer, token_id: int) -> str:
    """The text of a token; a part of a character is U+FFFD."""
    piece = tokenizer.piece(token_id)
    return tokenizer.decode([token_id], skip_special_tokens=False) if piece is None else piece


def chat_logprobs(tokenizer: Tokenizer, records: Sequence[TokenLogprob]) -> dict[str, Any]:
    """``logprobs`` of a chat choice; end tokens are no part of the content."""

    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        text = token_text(tokenizer, token_id)
        known = "\N{REPLACEMENT CHARACTER}" not in text
        return {"token": text, "logprob": logprob, "bytes": list(text.encode()) if known else None}

    content = [
        {
            **entry(record.token_id, record.logprob),
            "top_logprobs": [entry(token_id, logprob) for token_id, logprob in record.top],
        }
        for record in records
        if record.token_id not in tokenizer.eos_token_ids
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(
    tokenizer: Tokenizer, records: Sequence[TokenLogprob], offset: int
) -> dict[str, Any]:
    """``logprobs`` of a plain completion; its text begins at ``offset``."""
    found: dict[str, Any] = {
        "tokens": [],
        "token_logprobs": [],
        "top_logprobs": [],
        "text_offset": [],
    }
    for record in records:
        if record.token_id in tokenizer.eos_token_ids:
            continue
        text = token_text(tokenizer, record.token_id)
        found["tokens"].append(text)
        found["token_logprobs"].append(record.logprob)
        found["top_logprobs"].append({token_text(tokenizer, i): lp for i, lp in record.top})
        found["text_offset"].append(offset)
        offset += len(text)
    return found

"""Questions of several lines stand between triple quotes."""

from __future__ import annotations

_QUOTES = '"""'


def unquoted(text: str) -> str:
    """What stands between triple quotes, or the text without space around it."""
    text = text.strip()
    if is_open(text):
        text = text + _QUOTES
    if not text.startswith(_QUOTES):
        return text
    return text.removeprefix(_QUOTES).removesuffix(_QUOTES).strip("\n")


def is_open(text: str) -> bool:
    """Whether triple quotes are begun and not ended."""
    text = text.strip()
    ended = text.endswith(_QUOTES) and len(text) >= 2 * len(_QUOTES)
    return text.startswith(_QUOTES) and not ended

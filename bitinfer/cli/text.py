"""Text from and for a terminal: proper Unicode, no control characters, wrapped at words."""

from __future__ import annotations

import re

# All control characters but tab and newline, line and paragraph separators, and what turns the
# direction of the text that follows.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """``text`` without characters that could steer the terminal, such as escape codes."""
    return _CONTROL.sub("", text)


def proper(text: str) -> str:
    """``text`` with "?" for each byte that was no UTF-8 (Python reads them as lone surrogates)."""
    return text.encode("utf-8", "replace").decode("utf-8")


class WordWrap:
    """Breaks lines between words of a text that comes in pieces.

    A word is given out when the next white space shows its length. A word longer than a line is
    given out as it comes, and the terminal breaks it.
    """

    def __init__(self, columns: int) -> None:
        self._columns = max(columns, 1)
        self._column = 0  # where the next character goes
        self._spaces = ""  # before the word
        self._word = ""

    def add(self, piece: str) -> str:
        """Take a piece; return what can be printed now."""
        out: list[str] = []
        for character in piece:
            if character == "\n":
                out += [self.finish(), "\n"]
                self._column, self._spaces = 0, ""
            elif character in " \t":
                out.append(self._flush_word())
                self._spaces += " " if character == " " else "    "
            else:
                self._word += character
                if _width(self._word) >= self._columns:
                    out.append(self._flush_word())
        return "".join(out)

    def finish(self) -> str:
        """Return the word that still waits."""
        return self._flush_word()

    def _flush_word(self) -> str:
        word, spaces = self._word, self._spaces
        if not word:
            return ""
        self._word = self._spaces = ""
        width = _width(word)
        if self._column and self._column + len(spaces) + width > self._columns:
            self._column, lead = width, "\n"
        else:
            self._column, lead = self._column + len(spaces) + width, spaces
        if self._column > self._columns:  # the terminal broke the word
            self._column %= self._columns
        return lead + word


def _width(text: str) -> int:
    """Terminal cells that ``text`` takes."""
    from prompt_toolkit.utils import get_cwidth

    return int(get_cwidth(text))

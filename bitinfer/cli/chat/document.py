"""Markdown that comes in pieces, as rows of a terminal: those that stay, and those in work.

A block stays once a line of the next one is complete, and so does an item of a list, for later text
changes neither. All rows together are those of `ChatMarkdown` for the whole text at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from markdown_it.token import Token
from rich.console import Console, RenderableType

from bitinfer.cli.chat.elements import ChatMarkdown, code_lines, parse

Rows = list[str]  # with colours, without line ends


class Block(NamedTuple):
    """A top-level block of a text."""

    tokens: list[Token]
    first_line: int  # from 0

    @property
    def is_list(self) -> bool:
        """Whether it is a list of any kind."""
        return self.tokens[0].type.endswith("_list_open")

    def num_parts(self) -> int:
        """How many `parts` there are."""
        if self.is_list:
            return sum(t.type == "list_item_open" and t.level == 1 for t in self.tokens)
        if self.tokens[0].type == "fence":
            return self.tokens[0].content.count("\n") + 2  # the fences are lines too
        return 1

    def parts(self, start: int = 0) -> list[RenderableType]:
        """What can be rendered alone: items of a list, lines of fenced code, else the block.

        The first ``start`` are left out.
        """
        if self.is_list:
            return [ChatMarkdown.of(item) for item in islice(_items(self.tokens), start, None)]
        if self.tokens[0].type == "fence":
            return [*code_lines(self.tokens[0])[start:]]
        return [] if start else [ChatMarkdown.of(self.tokens)]


class MarkdownDocument:
    """Collects a text and gives out its rows, each once for good."""

    def __init__(self, console: Console) -> None:
        """Render with the colours of ``console``, which this object owns from now on."""
        self._console = console
        self._text = ""  # from the first block on that is not wholly given out
        self._given = 0  # parts of that block that are
        self._begun = False  # a block was given out, so that the next follows a blank row

    def add(self, text: str) -> None:
        """Take a piece of the text."""
        self._text += text

    def take(self, columns: int, most_rows: int) -> tuple[Rows, Rows]:
        """Rows that stay from now on, and the last ``most_rows`` of those in work.

        Lines of code stay as they are once they are out of the latter: the one case in which
        colours can differ from those of the whole text, where a string or comment ends later.
        """
        self._console.width = columns
        complete = _blocks(self._text[: self._text.rfind("\n") + 1])
        settled = [row for block in complete[:-1] for row in self._give(block)]
        ready = 0
        if complete:
            lines = self._text.split("\n")
            self._text = "\n".join(lines[complete[-1].first_line :])
            ready = complete[-1].num_parts() - 1 - self._given  # the last part may change
        working = self._working()
        while ready > 0 and (complete[-1].is_list or sum(map(len, working)) > most_rows):
            settled += working.pop(0)
            self._given += 1
            ready -= 1
        return settled, [row for rows in working for row in rows][-most_rows:]

    def finish(self, columns: int) -> Rows:
        """All rows that are left; the text is complete."""
        self._console.width = columns
        rows = [row for block in _blocks(self._text) for row in self._give(block)]
        self._text = ""
        return rows

    def _give(self, block: Block) -> Rows:
        """The rest of a block, which is not in work any more."""
        parts = self._parts(block, self._given, self._begun)
        self._given, self._begun = 0, True
        return [row for rows in parts for row in rows]

    def _working(self) -> list[Rows]:
        """Rows of each part that is not given out."""
        parts: list[Rows] = []
        given, begun = self._given, self._begun
        for block in _blocks(self._text):
            parts += self._parts(block, given, begun)
            given, begun = 0, True
        return parts

    def _parts(self, block: Block, given: int, begun: bool) -> list[Rows]:
        """Rows of each part of a block after the first ``given``."""
        parts = [self._rows(part) for part in block.parts(given)]
        if begun and not given:
            parts[0].insert(0, "")
        return parts

    def _rows(self, part: RenderableType) -> Rows:
        with self._console.capture() as captured:
            self._console.print(part)
        return captured.get().removesuffix("\n").split("\n")


def _blocks(text: str) -> list[Block]:
    blocks: list[Block] = []
    for token in parse(text):
        if token.level == 0 and token.nesting >= 0:
            assert token.map is not None
            blocks.append(Block([], token.map[0]))
        blocks[-1].tokens.append(token)
    return blocks


def _items(tokens: list[Token]) -> Iterator[list[Token]]:
    """Each item of a list as a list of one."""
    opening, closing = tokens[0], tokens[-1]
    number = int(opening.attrs.get("start", 1))
    item: list[Token] = []
    for token in tokens[1:-1]:
        item.append(token)
        if token.type == "list_item_close" and token.level == 1:
            numbered = opening.copy(attrs={**opening.attrs, "start": number})
            yield [numbered, *item, closing]
            item = []
            number += 1

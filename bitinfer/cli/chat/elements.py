"""How markdown looks in the chat: rich's elements where they suit, ours where they do not.

Ours differ in three ways: nothing depends on what follows (so that a list can be printed item by
item while it streams), nothing is padded to the width (so that copied code is clean), and all
colours are the terminal's own (so that light and dark backgrounds both work).
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy

from markdown_it import MarkdownIt
from markdown_it.token import Token
from pygments.token import Comment, Generic, Keyword, Name, Number, String  # type: ignore[import-untyped]
from rich import box, markdown
from rich.console import Console, ConsoleOptions, RenderResult
from rich.containers import Renderables
from rich.markdown import MarkdownElement
from rich.rule import Rule
from rich.segment import Segment
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from bitinfer.cli.text import printable

THEME = Theme(
    {
        "markdown.code": "cyan",
        "markdown.code_block": "none",
        "markdown.block_quote": "italic",
        "markdown.item.bullet": "bold",
        "markdown.item.number": "bold",
        "markdown.h1": "bold underline",
        "markdown.h2": "bold underline",
        **{f"markdown.h{level}": "bold" for level in range(3, 7)},
        "markdown.link": "underline",
        "markdown.link_url": "dim",
        "markdown.table.border": "dim",
        "markdown.table.header": "bold",
    }
)
_CODE_COLORS = ANSISyntaxTheme(
    {
        Comment: Style(dim=True, italic=True),
        Keyword: Style(color="magenta"),
        Name.Builtin: Style(color="cyan"),
        Name.Function: Style(bold=True),
        Name.Class: Style(bold=True),
        Name.Decorator: Style(color="magenta"),
        Name.Tag: Style(color="magenta"),
        String: Style(color="green"),
        Number: Style(color="cyan"),
        Generic.Deleted: Style(color="red"),
        Generic.Inserted: Style(color="green"),
        Generic.Heading: Style(bold=True),
    }
)
_TAB_SIZE = 4
_CONTAINERS = ("blockquote_open", "bullet_list_open", "ordered_list_open", "table_open")

# Without HTML, so that a <tag> is shown and not swallowed; without link definitions and underlined
# headings, which would change what was printed before them.
_PARSER = (
    MarkdownIt("commonmark", {"html": False})
    .enable(["strikethrough", "table"])
    .disable(["reference", "lheading"])
)


def parse(text: str) -> list[Token]:
    """Markdown tokens whose texts hold no control characters."""
    tokens = _PARSER.parse(text)
    for token in tokens:
        _tame(token)
    return [token for token in tokens if token.type != "inline" or token.children]


class ChatMarkdown(markdown.Markdown):
    """Markdown as the chat shows it."""

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False, justify="default")
        self.parsed = parse(text)

    @classmethod
    def of(cls, tokens: list[Token]) -> ChatMarkdown:
        """Some tokens of `parse`."""
        made = copy(_BLANK)  # rich's own constructor makes a parser, which takes a millisecond
        made.parsed = tokens
        return made

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rendered = iter(super().__rich_console__(console, options))
        first = next(rendered, None)
        blank = first == Segment.line() and self.parsed[0].type in _CONTAINERS  # a quirk of rich
        if first is not None and not blank:
            yield first
        yield from rendered


def _tame(token: Token) -> None:
    """Make a token's texts safe, its line breaks real, and links say their address once."""
    token.content = printable(token.content)
    token.info = printable(token.info)
    for key, value in token.attrs.items():
        token.attrs[key] = printable(value) if isinstance(value, str) else value
    for child in token.children or ():
        _tame(child)
        if child.type == "softbreak":  # poems and addresses; models wrap no prose
            child.type = "hardbreak"
        elif child.type == "image":
            child.type, child.tag = "text", ""
            child.content = f"{child.content} ({child.attrs.get('src', '')})"
            child.children = None
    if token.children:
        token.children = list(_without_bare_links(token.children))


def _without_bare_links(children: list[Token]) -> Iterator[Token]:
    """Drop the link around a text that is its own address."""
    bare = False
    for index, child in enumerate(children):
        if child.type == "link_open":
            address = str(child.attrs.get("href", "")).removeprefix("mailto:")
            bare = children[index + 1].content == address
        if not (bare and child.type in ("link_open", "link_close")):
            yield child


class Heading(markdown.Heading):
    """A heading, always at the left."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class CodeBlock(markdown.CodeBlock):
    """Code between its own fences, not boxed, so that it copies as it is."""

    def __init__(self, token: Token) -> None:
        super().__init__("", "")
        self._token = token

    @classmethod
    def create(cls, markdown: markdown.Markdown, token: Token) -> CodeBlock:
        """Make the element of a fence or of indented code."""
        return cls(token)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from code_lines(self._token)


def code_lines(token: Token) -> list[Text]:
    """The lines of a code block, coloured; between fences, or else indented."""
    info = token.info.strip()
    language = info.split(maxsplit=1)[0] if info else "text"
    code = token.content.removesuffix("\n").expandtabs(_TAB_SIZE)
    syntax = Syntax(code, language, theme=_CODE_COLORS, word_wrap=True)
    lines = list(syntax.highlight(code).split("\n", allow_blank=True))[: code.count("\n") + 1]
    if token.type != "fence":
        return [Text("    ").append_text(line) for line in lines]
    opening, closing = (Text(mark, "dim") for mark in (token.markup + info, token.markup))
    return [opening, *(lines if token.content else ()), closing]


class BlockQuote(markdown.BlockQuote):
    """A quotation behind a bar."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        bar = "> " if options.ascii_only else "▌ "
        yield from _marked(console, options, self.elements, bar, bar, self.style)


class HorizontalRule(MarkdownElement):
    """A line across."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = "-" if options.ascii_only else "─"
        yield Rule(characters=line, style=console.get_style("markdown.hr"))


class ListElement(markdown.ListElement):
    """A list whose items stand alone: the mark of one does not depend on the others."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        style = console.get_style("markdown.item.bullet")
        for number, item in enumerate(self.items, self.list_start or 0):
            if self.list_type == "ordered_list_open":
                mark = f"{number}. "
            else:
                mark = "- " if options.ascii_only else "• "
            blank = " " * len(mark)
            yield from _marked(console, options, item.elements, mark, blank, item.style, style)


class TableElement(markdown.TableElement):
    """A table without a frame."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in super().__rich_console__(console, options):
            assert isinstance(table, Table)
            table.show_edge = False
            table.box = box.SIMPLE_HEAD
            for column in table.columns:
                column.overflow = "fold"
            yield table


def _marked(
    console: Console,
    options: ConsoleOptions,
    elements: Renderables,
    mark: str,
    blank: str,
    style: Style,
    mark_style: Style | None = None,
) -> RenderResult:
    """Elements behind ``mark`` on the first line and ``blank`` on all others."""
    narrow = options.update(width=max(options.max_width - len(mark), 1))
    before: MarkdownElement | None = None
    first = True
    for element in elements:  # type: ignore[attr-defined]  # rich calls its iterator Iterable
        lines = console.render_lines(element, narrow, style=style, pad=False)
        if isinstance(element, markdown.Paragraph) and isinstance(before, markdown.Paragraph):
            lines.insert(0, [])
        before = element
        for line in lines:
            yield Segment(mark if first else blank, mark_style or style)
            yield from line
            yield Segment.line()
            first = False
    if first:
        yield Segment(mark.rstrip() + "\n", mark_style or style)


ChatMarkdown.elements = {
    **markdown.Markdown.elements,
    "heading_open": Heading,
    "fence": CodeBlock,
    "code_block": CodeBlock,
    "blockquote_open": BlockQuote,
    "hr": HorizontalRule,
    "bullet_list_open": ListElement,
    "ordered_list_open": ListElement,
    "table_open": TableElement,
}
_BLANK = ChatMarkdown("")

"""Parts of pages that are written by ``make docs``: what stands between two marks."""

from __future__ import annotations

from pathlib import Path

BEGIN = "<!-- figures: written by `make docs` from the newest record -->"
END = "<!-- end of figures -->"


def with_part(page: str, text: str) -> str:
    """The text of a page with the part between the marks replaced."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def rewrite(path: Path, text: str) -> None:
    """Replace the part between the marks in a file."""
    page = path.read_text(encoding="utf-8")
    path.write_text(with_part(page, text), encoding="utf-8")


def picture(name: str, what: str) -> str:
    """``docs/plots/<name>-light.svg`` or its dark twin, as the reader's screen is."""
    return (
        "<picture>\n"
        f'  <source media="(prefers-color-scheme: dark)" srcset="plots/{name}-dark.svg">\n'
        f'  <img alt="{what}" src="plots/{name}-light.svg">\n'
        "</picture>"
    )

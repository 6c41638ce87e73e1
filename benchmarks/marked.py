"""Parts of pages that are written by ``make docs``: what stands between two marks."""

from __future__ import annotations

from pathlib import Path


def with_parts(page: str, parts: dict[str, str]) -> str:
    """The text of a page with what stands between the marks of each name replaced."""
    for name, text in parts.items():
        begin = f"<!-- {name}: written by `make docs` from the newest record -->"
        end = f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = f"{before}{begin}\n{text}\n{end}{after}"
    return page


def rewrite(path: Path, parts: dict[str, str]) -> None:
    """Replace the parts of a file."""
    page = path.read_text(encoding="utf-8")
    path.write_text(with_parts(page, parts), encoding="utf-8")


def picture(name: str, what: str) -> str:
    """``docs/plots/<name>-light.svg`` or its dark twin, as the reader's screen is."""
    return (
        "<picture>\n"
        f'  <source media="(prefers-color-scheme: dark)" srcset="plots/{name}-dark.svg">\n'
        f'  <img alt="{what}" src="plots/{name}-light.svg">\n'
        "</picture>"
    )

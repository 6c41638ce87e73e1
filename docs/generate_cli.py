"""Write docs/cli.md from the commands' own help; ``make docs`` runs it."""

from __future__ import annotations

from pathlib import Path

import click

from bitinfer.cli import main as bitinfer

PAGE = Path(__file__).resolve().parent / "cli.md"
INTRODUCTION = """# Command line

Written by `make docs` from `bitinfer COMMAND --help`.

Exit codes: 0 done, 1 an error (one line on stderr), 2 wrong usage.
"""


def cli_page() -> str:
    """The whole page."""
    root = click.Context(bitinfer, info_name="bitinfer", terminal_width=80)
    parts = [INTRODUCTION, _section("bitinfer", bitinfer, root)]
    for name in bitinfer.list_commands(root):
        command = bitinfer.get_command(root, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=root, terminal_width=80)
        parts.append(_section(f"bitinfer {name}", command, context))
    return "\n".join(parts)


def _section(title: str, command: click.Command, context: click.Context) -> str:
    lines = [line.rstrip() for line in command.get_help(context).splitlines()]
    return "\n".join([f"## {title}", "", "```text", *lines, "```", ""])


if __name__ == "__main__":
    PAGE.write_text(cli_page(), encoding="utf-8")

"""Write docs/cli.md from the commands' own help; ``make docs`` runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from bitinfer.cli import main as bitinfer
from bitinfer.cli.config import settings_of

PAGE = Path(__file__).resolve().parent / "cli.md"
INTRODUCTION = """# Command line

Written by `make docs` from `bitinfer COMMAND --help`.

Exit codes: 0 done, 1 an error (one line on stderr) or a closed pipe (silent), 2 wrong usage,
130 ended by Ctrl-C.

Text, tables and JSON go to stdout, everything else (notes, errors, questions) to stderr.

## Settings

A flag beats an environment variable, the variable beats the settings file, the file the default.
The file is TOML; `bitinfer config path` tells where it is (`BITINFER_CONFIG` names another),
`bitinfer config edit` opens it and `bitinfer config show --origin` lists what holds and why. What
every command shall use comes first, then a table for each command:

```toml
model = "~/models/bitnet-2b"
threads = 8

[chat]
temperature = 0.7
logit-bias = { 15 = -2.5, 16 = -inf }
```

| setting | variable | commands |
| --- | --- | --- |
"""


def cli_page() -> str:
    """The whole page."""
    root = click.Context(bitinfer, info_name="bitinfer", terminal_width=80)
    sections = list(_sections("bitinfer", bitinfer, root))
    return "\n".join([INTRODUCTION + _settings(root), *sections])


def _sections(title: str, command: click.Command, context: click.Context) -> Iterator[str]:
    """The help of a command, then those of the commands in it."""
    lines = [line.rstrip() for line in command.get_help(context).splitlines()]
    yield "\n".join([f"## {title}", "", "```text", *lines, "```", ""])
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            below = click.Context(inner, info_name=name, parent=context, terminal_width=80)
            yield from _sections(f"{title} {name}", inner, below)
    for name, inner in getattr(command, "subcommands", {}).items():  # of `bench`
        full = f"{context.info_name} {name}"
        below = click.Context(inner, info_name=full, parent=context.parent, terminal_width=80)
        yield from _sections(f"{title} {name}", inner, below)


def _settings(root: click.Context) -> str:
    """Rows of the table of settings: key, variable, and which commands have it."""
    commands: dict[tuple[str, str], list[str]] = {}
    for name in bitinfer.list_commands(root):
        for option in settings_of(bitinfer.get_command(root, name)):
            commands.setdefault((option.key, str(option.envvar)), []).append(name)
    rows = (f"| `{k}` | `{v}` | {', '.join(names)} |\n" for (k, v), names in commands.items())
    return "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(cli_page(), encoding="utf-8")

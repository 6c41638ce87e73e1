"""``bitinfer config``: which settings hold, where they come from, and the file to change them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click
from click.core import ParameterSource

from bitinfer.cli import command_names, main
from bitinfer.cli.options import COMMON_SETTINGS
from bitinfer.cli.setting import Setting, plain, settings_file, settings_path

_TEMPLATE = """\
# Settings of bitinfer; 'bitinfer config show' lists all of them.
# First those of every command, then a table for each command, such as [chat].

"""

Row = tuple[Any, str]  # value, origin


@click.group(
    invoke_without_command=True,
    epilog="""\b
Examples:
  bitinfer config show --origin
  bitinfer config edit""",
)
@click.pass_context
def config(ctx: click.Context) -> None:
    """Show and change the settings: flag > environment > file > default.

    The option --top-p is top-p in the file and BITINFER_TOP_P in the environment, and so on; a
    table such as [chat] in the file is for one command.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@config.command(
    epilog="""\b
Examples:
  bitinfer config show --origin       where each value comes from
  bitinfer config show > config.toml  a file to start from"""
)
@click.option("--origin", is_flag=True, help="Say where each value comes from")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with origins")
@click.pass_context
def show(ctx: click.Context, origin: bool, as_json: bool) -> None:
    """Print the settings that hold now, as TOML."""
    tables = dict(_tables(ctx))
    path = settings_file(ctx).path
    if as_json:
        found: dict[str, Any] = {"file": str(path)}
        for table, rows in tables.items():
            values = {key: {"value": plain(v), "origin": o} for key, (v, o) in rows.items()}
            found[table or "common"] = values
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    click.echo(f"# {path}{'' if path.exists() else ' (not there yet)'}")
    for table, rows in tables.items():
        click.echo(f"\n[{table}]" if table else "\n# for each command that takes it")
        for key, (value, source) in rows.items():
            line = f"# {key} =" if value is None else f"{key} = {_toml(value)}"
            click.echo(f"{line:<32}  # {source}" if origin else line)


@config.command()
@click.pass_context
def path(ctx: click.Context) -> None:
    """Print where the settings file is, or would be."""
    click.echo(settings_path(ctx)[0])


@config.command()
@click.pass_context
def edit(ctx: click.Context) -> None:
    """Open the settings file in an editor.

    The editor is $VISUAL or $EDITOR; afterwards the file is checked.
    """
    file, _ = settings_path(ctx)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_TEMPLATE, encoding="utf-8")
    click.edit(filename=str(file))
    for _ in _tables(ctx):
        pass  # reading everything names the first mistake


def _tables(ctx: click.Context) -> Iterator[tuple[str, dict[str, Row]]]:
    """What holds for every command, under "", and what differs from that, by command.

    Raises:
        ConfigError: a variable or the file has a mistake.
    """
    root = ctx.find_root()
    options = {name: settings_of(main.get_command(root, name)) for name in command_names()}
    common = {option.key: option for found in options.values() for option in found}
    general = _rows("", [o for o in common.values() if o.name in COMMON_SETTINGS], root)
    yield "", general
    for name, found in options.items():
        own = _rows(name, found, root)
        differing = {key: row for key, row in own.items() if general.get(key) != row}
        if differing:
            yield name, differing


def settings_of(command: click.Command | None) -> list[Setting]:
    """The settings of a command, or of all commands of a group."""
    if isinstance(command, click.Group):
        inner = {o.key: o for c in command.commands.values() for o in settings_of(c)}
        return list(inner.values())
    return [o for o in command.params if isinstance(o, Setting)] if command else []


def _rows(name: str, options: list[Setting], root: click.Context) -> dict[str, Row]:
    """Value and origin of each setting when ``name`` is called without a flag."""
    command = click.Command(name, params=list(options))
    found: dict[str, Row] = {}
    with command.make_context(name, [], parent=root) as ctx:
        for option in options:
            assert option.name is not None
            source = ctx.get_parameter_source(option.name)
            origin = "default"
            if source is ParameterSource.ENVIRONMENT:
                origin = str(option.envvar)
            elif source is ParameterSource.DEFAULT_MAP:
                origin = option.place(ctx)
            found[option.key] = (ctx.params[option.name], origin)
    return found


def _toml(value: Any) -> str:
    """A value as TOML; texts are as in JSON."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(v)}" for key, v in value.items()) + " }"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(plain(value), ensure_ascii=False)

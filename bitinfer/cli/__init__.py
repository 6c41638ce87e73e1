"""The command ``bitinfer``: a file per subcommand or group of them; only here is anything printed.

A subcommand is imported when it is called, so that ``--help`` and ``--version`` are quick. Whatever
goes wrong becomes one line ``error: ...`` and an exit code: 1, or 2 for wrong usage, 130 after
Ctrl-C. ``BITINFER_DEBUG=1`` shows the traceback instead.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from bitinfer import __version__

# Name -> what it does; the module of a command has its name, or is one of _MODULES.
_COMMANDS = {
    "chat": "Chat with a model.",
    "generate": "Continue a text.",
    "embed": "Turn texts into vectors.",
    "serve": "Serve a model over HTTP, as OpenAI's API has it.",
    "batch": "Answer a file of requests, each row once.",
    "convert": "Pack a Hugging Face checkpoint for fast loading.",
    "train": "Train a ternary model on text files.",
    "distill": "Make a ternary student of a full-precision model.",
    "export": "Write a model as GGUF, for other programs.",
    "pull": "Fetch a model from the Hugging Face hub.",
    "list": "List pulled models.",
    "show": "Show what is known of a model of the hub.",
    "verify": "Check the files of a pulled model.",
    "rm": "Remove a pulled model.",
    "info": "Show a model and this machine.",
    "bench": "Measure prefill and decode speed.",
    "eval": "Measure how good a model is.",
    "tune": "Measure what is fastest on this machine, and keep it.",
    "doctor": "Test this machine, and say what it can reach.",
    "history": "List, search, show and remove conversations.",
    "config": "Show and change the settings.",
    "completion": "Print the completion script of a shell.",
}

_MODULES = dict.fromkeys(("pull", "list", "show", "verify", "rm"), "hub")

_GREETING = """\
bitinfer {version}: ternary language models on the CPU

  bitinfer chat                    talk to the embedded model, no download
  bitinfer generate "Once upon"    continue a text
  bitinfer chat 2b4t               the same with a model of the Hugging Face hub
  bitinfer serve                   serve it to programs that speak OpenAI's API
  bitinfer convert SOURCE TARGET   pack a Hugging Face checkpoint

'bitinfer --help' lists all commands, 'bitinfer COMMAND --help' explains one."""

_EXAMPLES = """\b
Examples:
  bitinfer chat
  cat notes.txt | bitinfer generate --chat "Sum this up."
  bitinfer doctor
  bitinfer config show --origin

\b
Exit codes: 0 done, 1 an error, 2 wrong usage, 130 ended by Ctrl-C."""


class _Commands(click.Group):
    """Imports subcommands late and turns every error into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"bitinfer.cli.{_MODULES.get(cmd_name, cmd_name)}")
        commands = (value for value in vars(module).values() if isinstance(value, click.Command))
        return next(command for command in commands if command.name == cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the one that may be meant."""
        close = difflib.get_close_matches(args[0], _COMMANDS, n=1)
        if close and args[0] not in _COMMANDS and not ctx.resilient_parsing:
            raise click.UsageError(f"no command {args[0]!r}: did you mean {close[0]!r}?", ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> NoReturn:
        """Run and exit; never returns."""
        options["standalone_mode"] = False
        _open_closed_streams()
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning  # type: ignore[assignment]
                code = super().main(args, *rest, **options)
            sys.stdout.flush()
        except BaseException as error:
            if os.environ.get("BITINFER_DEBUG") == "1":
                raise
            code = _report(error)
        sys.exit(code if isinstance(code, int) else 0)


def _open_closed_streams() -> None:
    """Read nothing from, and write nowhere, what was closed before the start (``>&-``)."""
    nothing = Path(os.devnull)
    sys.stdin = sys.stdin or nothing.open()
    sys.stdout = sys.stdout or nothing.open("w")
    sys.stderr = sys.stderr or nothing.open("w")


def _report(error: BaseException) -> int:
    """Say in one line what went wrong; return the exit code."""
    if isinstance(error, OSError) and error.filename is None:  # of a stream, most likely stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing fails when Python flushes at exit
        if error.errno in (errno.EPIPE, errno.EIO):  # a closed pipe or terminal
            return 1
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return 130
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    code, text = 1, str(error)
    if isinstance(error, click.ClickException):
        code, text = error.exit_code, error.format_message()
        context = getattr(error, "ctx", None)
        if isinstance(error, click.UsageError) and context is not None:
            text = f"{text.rstrip('.')} (see '{context.command_path} --help')"
    elif isinstance(error, MemoryError):
        text = "not enough memory: close other programs or take a smaller model or context"
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror.lower() + (f": {error.filename}" if error.filename else "")
    line = " ".join(text.split()) or type(error).__name__
    click.echo(f"error: {line}", err=True)
    return code


def _show_warning(message: Warning | str, *_: Any) -> None:
    click.echo(f"note: {message}", err=True)


def command_names() -> tuple[str, ...]:
    """The subcommands; the settings file may have a table for each."""
    return tuple(_COMMANDS)


@click.group(cls=_Commands, invoke_without_command=True, epilog=_EXAMPLES)
@click.option(
    "--config",
    envvar="BITINFER_CONFIG",
    type=click.Path(),
    metavar="FILE",
    help="Settings file [default: what 'bitinfer config path' prints]",
)
@click.version_option(__version__, message="bitinfer %(version)s")
@click.pass_context
def main(ctx: click.Context, config: str | None) -> None:
    """Run ternary (1.58-bit) language models on the CPU."""
    if ctx.invoked_subcommand is None:
        click.echo(_GREETING.format(version=__version__))

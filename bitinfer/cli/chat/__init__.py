"""``bitinfer chat``: a conversation on a terminal, or one reply per line of piped input."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from bitinfer.cli.options import (
    Sections,
    history_options,
    load_model,
    loading_options,
    open_history,
    sampling_options,
    session_option,
    setting,
)


@click.command(
    cls=Sections,
    epilog="""\b
Examples:
  bitinfer chat 2b4t --system "Answer in one sentence."
  bitinfer chat --continue
  echo "What is a bird?" | bitinfer chat""",
)
@click.argument("name", metavar="[MODEL]", required=False)
@loading_options
@sampling_options
@setting("--system", metavar="TEXT", help="Instruction that stands before the conversation")
@click.option(
    "--continue",
    "resumed",
    is_flag=False,
    flag_value="latest",
    metavar="[NUMBER]",
    help="Go on with the latest conversation, or one of 'bitinfer history list'",
)
@setting(
    "--markdown/--no-markdown",
    " /--plain",
    default=None,
    help="Lay out replies [default: where the terminal can]",
)
@setting(
    "--thinking",
    type=click.Choice(["show", "hide"]),
    help="What a model thinks before it answers [default: show]",
)
@setting("--stats/--no-stats", default=None, help="Figures below each reply [default: no]")
@session_option
@history_options
def chat(name: str | None, system: str | None, resumed: str | None, **options: Any) -> None:
    """Chat with MODEL (as --model); piped input gets one reply per line."""
    from bitinfer.cli.chat.start import find_conversation, kept_session, run_chat
    from bitinfer.cli.chat.terminal import Interrupts

    if resumed is not None and not options["history"]:
        raise click.UsageError("--continue needs the history: leave out --no-history")
    if name is not None:
        ctx = click.get_current_context()
        if ctx.get_parameter_source("model") is ParameterSource.COMMANDLINE:
            raise click.UsageError("MODEL and --model: only one of them", ctx=ctx)
        options["model"] = name
    session = options.pop("session")
    typed = _typed_file(options["history_file"]) if options["history"] else None
    with ExitStack() as stack:
        history = open_history(options)
        if history is not None:
            stack.enter_context(history)
        conversation = find_conversation(history, resumed) if history and resumed else None
        model = stack.enter_context(load_model(options))
        if session is not None:
            stack.enter_context(kept_session(model, session))
        interrupts = Interrupts()
        stack.callback(interrupts.close)
        run_chat(
            model,
            history,
            conversation,
            options,
            system=system,
            typed=typed,
            interrupts=interrupts,
        )


def _typed_file(history_file: Path | None) -> Path:
    """Where the lines that were typed are kept: beside the conversations."""
    from bitinfer.history import default_path

    path = history_file.expanduser() if history_file else default_path()
    return path.with_name("typed.txt")

"""``bitinfer generate``: continue a text; nothing but the text (or JSON) goes to stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bitinfer.cli.options import (
    Sections,
    constraint_options,
    load_model,
    loading_options,
    sampling_options,
    setting,
)
from bitinfer.cli.setting import Whole
from bitinfer.cli.text import printable, proper
from bitinfer.sampling import MOST_LOGPROBS

if TYPE_CHECKING:
    from bitinfer.cli.generation import Generation


@click.command(
    cls=Sections,
    epilog="""\b
Examples:
  bitinfer generate "Once upon a time"
  cat story.txt | bitinfer generate "And then"
  bitinfer generate --chat --file notes.txt "Sum this up."
  bitinfer generate --json --seed 1 "Once upon" | jq -r .text
  bitinfer generate --jsonl prompts.jsonl > results.jsonl

With --chat, what a model thinks (<think> ... </think>) stands before its
answer; JSON has it apart, as "thinking".

\b
A line of --jsonl is a JSON string, or an object:
  {"prompt": "Once upon", "max_tokens": 40, "seed": 1, "id": "a"}
  {"messages": [{"role": "user", "content": "Hi"}]}
Its other keys are options, which beat the flags. The results come in the
same order, with the number of the line and its "id". One that fails has an
"error", and then the exit code is 1.""",
)
@click.argument("prompt", required=False)
@click.option(
    "-f",
    "--file",
    "files",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Text that stands before PROMPT (repeatable)",
)
@setting("--chat/--no-chat", help="Ask the prompt as a question, through the chat template")
@click.option("--system", metavar="TEXT", help="Instruction for --chat")
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text (repeatable)")
@click.option("-n", "--completions", type=Whole(1), help="So many, with a line '---' between them")
@loading_options
@sampling_options
@constraint_options
@click.option(
    "--logprobs",
    type=Whole(0, MOST_LOGPROBS),
    help="With --json: logprob of each token, and of so many of the likeliest",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object")
@click.option(
    "--jsonl",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="Read prompts from the lines of FILE (- is stdin), print a JSON object for each",
)
@click.pass_context
def generate(ctx: click.Context, /, **options: Any) -> None:
    """Continue a text: stdin, then the FILEs, then PROMPT, joined by newlines."""
    _check_usage(ctx, options)
    jsonl, as_json = options.pop("jsonl"), options.pop("as_json")
    prompt, files = options.pop("prompt"), options.pop("files")
    text = "" if jsonl else _whole_prompt(ctx, prompt, files)
    from bitinfer.cli.generation import Generation, run_batch

    with load_model(options) as model:
        generation = Generation(model, options)
        if jsonl:
            run_batch(generation, jsonl)
        elif as_json:
            facts = generation.facts(generation.prompt_of(text))
            click.echo(json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False))
        else:
            _print_text(generation, text)


def _check_usage(ctx: click.Context, options: dict[str, Any]) -> None:
    """Refuse flags that do not go together."""
    typed = ParameterSource.COMMANDLINE
    given = {name for name in options if ctx.get_parameter_source(name) is typed}
    problem = ""
    if "jsonl" in given and given & {"prompt", "files", "completions", "as_json"}:
        problem = "--jsonl: PROMPT, --file, --json and --completions do not go with it"
    elif "logprobs" in given and not given & {"as_json", "jsonl"}:
        problem = "--logprobs: only with --json or --jsonl"
    elif "system" in given and not options["chat"]:
        problem = "--system: only with --chat"
    if problem:
        raise click.UsageError(problem, ctx=ctx)


def _whole_prompt(ctx: click.Context, prompt: str | None, files: Sequence[Path]) -> str:
    """What stands on stdin, unless that is a terminal; then the files; then the argument."""
    if prompt is None and not files and sys.stdin.isatty():
        raise click.UsageError("expected PROMPT, --file or text on stdin", ctx=ctx)
    parts = [] if sys.stdin.isatty() else [sys.stdin.read()]
    parts += [file.read_text(encoding="utf-8", errors="replace") for file in files]
    parts = [part.removesuffix("\n") for part in parts if part]
    return proper("\n".join([*parts, prompt] if prompt else parts))


def _print_text(generation: Generation, text: str) -> None:
    """Print as it comes; a terminal is not steered by what a model writes."""
    shown = printable if sys.stdout.isatty() else str
    prompt = generation.prompt_of(text)
    if generation.count > 1:
        texts = [generation.opening(prompt) + done.text for done in generation.completions(prompt)]
        click.echo("\n---\n".join(map(shown, texts)))
        return
    with closing(generation.stream(prompt)) as pieces:
        for piece in pieces:
            click.echo(shown(piece), nl=False)
    click.echo()

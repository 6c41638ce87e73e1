"""``bitinfer eval``: perplexity, multiple choice, classification; tables for people, or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bitinfer.cli.eval_report import (
    Progress,
    Report,
    accuracy_facts,
    perplexity_facts,
    print_accuracy,
    print_confusion,
    print_perplexity,
    timed,
)
from bitinfer.cli.options import Sections, load_model, serving_options
from bitinfer.cli.setting import Whole

_FILE = click.argument("file", type=click.Path(path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, with facts of the run")
_SEPARATOR = click.option(
    "--separator", default=" ", metavar="TEXT", help="Between prompt and choice [default: a space]"
)
_CHAT = click.option(
    "--chat", is_flag=True, help="Ask the prompt as a question, through the chat template"
)


@click.group(
    invoke_without_command=True,
    epilog="""\b
Examples:
  bitinfer eval perplexity stories.txt
  bitinfer eval choice questions.jsonl -m 2b4t --chat
  bitinfer eval classify reviews.jsonl --template "{text} It was"
  bitinfer eval harness --tasks arc_easy --model_args pretrained=tales-14m""",
)
@click.pass_context
def eval(ctx: click.Context) -> None:  # noqa: A001 (the command's name)
    """Measure how good a model is; see docs/evaluation.md."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@eval.command(
    cls=Sections,
    epilog="""\b
Examples:
  bitinfer eval perplexity stories.txt
  bitinfer eval perplexity wiki.txt -m 2b4t --window 512 --stride 512
  bitinfer eval perplexity val.txt --documents --json""",
)
@_FILE
@click.option(
    "--window", type=Whole(1), help="Tokens read at once [default: the context, at most 2048]"
)
@click.option("--stride", type=Whole(1), help="Tokens it moves by [default: half the window]")
@click.option(
    "--documents", is_flag=True, help="Read what stands between <s> and </s> each by itself"
)
@_JSON
@serving_options
def perplexity(
    file: Path,
    window: int | None,
    stride: int | None,
    documents: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Perplexity of a text, by sliding window.

    Each token counts once, given at least window - stride + 1 tokens before it.
    """
    from bitinfer.evaluate import Perplexity, document_perplexity, perplexity as text_perplexity
    from bitinfer.text_file import read_documents, read_text

    texts = list(read_documents(file)) if documents else []
    text = "" if documents else read_text(file)

    def measure(progress: Progress) -> Perplexity:
        moves: Any = {"window": window, "stride": stride, "progress": progress}
        if documents:
            return document_perplexity(model, texts, **moves)
        return text_perplexity(model, text, **moves)

    with load_model(options) as model:
        found, seconds = timed("reading", measure)
        report = Report(model, "perplexity", file, seconds)
    if as_json:
        facts = perplexity_facts(found) | {"tokens_per_s": found.tokens / seconds}
        report.print_json({"documents": documents, **facts})
    else:
        print_perplexity(report, found)


@eval.command(
    cls=Sections,
    epilog="""\b
A line of FILE is a JSON object; "answer" counts from 0, or is the choice:
  {"prompt": "Snow is", "choices": ["white", "black"], "answer": 0}

\b
Examples:
  bitinfer eval choice questions.jsonl
  bitinfer eval choice questions.jsonl -m 2b4t --chat --json""",
)
@_FILE
@_SEPARATOR
@_CHAT
@_JSON
@serving_options
def choice(file: Path, separator: str, chat: bool, as_json: bool, **options: Any) -> None:
    """Accuracy on multiple-choice questions.

    The answer is the choice that the model finds likeliest after the prompt, as a whole or per
    byte.
    """
    from bitinfer.evaluate import accuracy, choose, read_questions

    questions = read_questions(file)
    with load_model(options) as model:
        found, seconds = timed(
            "asking",
            lambda show: choose(model, questions, separator=separator, chat=chat, progress=show),
        )
        report = Report(model, "choice", file, seconds)
    right = accuracy(questions, found)
    if as_json:
        report.print_json({"chat": chat, "separator": separator, **accuracy_facts(right)})
    else:
        print_accuracy(report, right)


@eval.command(
    cls=Sections,
    epilog="""\b
A line of FILE is a JSON object:
  {"text": "What a film!", "label": "positive"}

\b
Examples:
  bitinfer eval classify reviews.jsonl --template "Review: {text} It was" \\
      --verbalizer positive=great --verbalizer negative=bad
  bitinfer eval classify topics.jsonl --template "{text} Topic:" --json""",
)
@_FILE
@click.option(
    "--template",
    default="{text}",
    metavar="TEXT",
    show_default=True,
    help="Prompt, with {text} where the text stands",
)
@click.option(
    "--verbalizer",
    "verbalizers",
    multiple=True,
    metavar="LABEL=WORDS",
    help="Words that stand for a label (repeatable) [default: the labels of FILE]",
)
@_SEPARATOR
@_CHAT
@_JSON
@serving_options
def classify(
    file: Path,
    template: str,
    verbalizers: Sequence[str],
    separator: str,
    chat: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Accuracy on labelled texts, with a table of confusions."""
    from bitinfer.evaluate import accuracy, choose, confusion, read_labelled_texts

    words = _verbalizers(verbalizers)
    try:
        texts = read_labelled_texts(file, template=template, verbalizers=words)
    except ValueError as error:
        raise click.UsageError(f"--{error}", ctx=click.get_current_context()) from None
    questions = texts.questions
    with load_model(options) as model:
        found, seconds = timed(
            "classifying",
            lambda show: choose(model, questions, separator=separator, chat=chat, progress=show),
        )
        report = Report(model, "classify", file, seconds)
    right, table = accuracy(questions, found), confusion(questions, found).tolist()
    if as_json:
        facts = {"template": template, "chat": chat, "separator": separator}
        facts |= {**accuracy_facts(right), "labels": texts.labels, "confusion": table}
        report.print_json(facts)
    else:
        print_accuracy(report, right)
        print_confusion(texts.labels, table)


@eval.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    epilog="""\b
Examples:
  bitinfer eval harness --tasks arc_easy --model_args pretrained=2b4t
  bitinfer eval harness --tasks lambada_openai --limit 100 \\
      --model_args pretrained=MODEL,kv_cache=f32
  bitinfer eval harness --help""",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def harness(arguments: Sequence[str]) -> None:
    """Run lm-evaluation-harness (pip install 'bitinfer[eval]').

    ARGUMENTS are those of its own command lm_eval, whose --model is bitinfer here. In --model_args
    pretrained= is a path or name, and what else may stand there are arguments of Model.load.
    """
    try:
        from bitinfer.evaluate.harness import main
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("lm_eval"):
            raise
        raise click.ClickException(
            "lm_eval is missing: install it with pip install 'bitinfer[eval]'"
        ) from None
    main(arguments)


def _verbalizers(given: Sequence[str]) -> dict[str, str]:
    """Words by label, in the order in which they were given."""
    words: dict[str, str] = {}
    for text in given:
        label, equals, word = text.partition("=")
        if not (label and equals and word) or label in words:
            raise click.UsageError(
                f"--verbalizer: expected LABEL=WORDS, each label once, got {text!r}",
                ctx=click.get_current_context(),
            )
        words[label] = word
    return words

"""Options that several commands share: how to load a model, how to sample, where history is."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bitinfer.cli.setting import ModelFolder, SamplingValue, Setting, Whole
from bitinfer.runtime import MAX_THREADS
from bitinfer.sampling import SETTINGS

if TYPE_CHECKING:
    from bitinfer.engine import Engine
    from bitinfer.history import History
    from bitinfer.model import Model

Command = TypeVar("Command", bound=Callable[..., Any])
Option = Callable[[Any], Any]  # what adds an option to a command

_LARGE = 1 << 20  # a bound that no help needs to name


class Sections(click.Command):
    """A command whose help has its many options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those without a heading first."""
        found: dict[str, list[tuple[str, str]]] = {"Options": []}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record is not None and isinstance(option, click.Option):
                found.setdefault(getattr(option, "section", "Options"), []).append(record)
        for heading, records in found.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def setting(*names: str, **attributes: Any) -> Option:
    """Like `click.option`, for what the environment and the settings file can set too."""
    return click.option(*names, cls=Setting, **attributes)


_MODEL, _CHOICE = "Model", "Sampling"  # headings

_LAYOUT = (
    setting(
        "--packing",
        type=click.Choice(["auto", "i2", "t3", "t5", "b1"]),
        default="auto",
        show_default=True,
        help="Layout of the ternary weights in memory",
        section=_MODEL,
    ),
    setting(
        "--head",
        type=click.Choice(["int8", "source", "6+2", "5+3"]),
        default="int8",
        show_default=True,
        help="Output head: int8, as the checkpoint has it, or int8 in two planes, faster for greedy"
        " and top-k replies: 6+2 proven to give those of int8, 5+3 statistically",
        section=_MODEL,
    ),
    setting(
        "--kv-cache",
        type=click.Choice(["f16", "f32", "int8"]),
        default="f16",
        show_default=True,
        help="How the cache keeps keys and values",
        section=_MODEL,
    ),
    setting(
        "--ffn",
        type=click.Choice(["auto", "dense", "sparse"]),
        default="auto",
        show_default=True,
        help="Sparse: decoding skips idle neurons of a model with squared ReLU; auto is dense",
        section=_MODEL,
    ),
    setting(
        "--weights",
        type=click.Choice(["auto", "mmap", "copy"]),
        default="auto",
        show_default=True,
        help="Weights where the file is mapped, or copied into huge pages",
        section=_MODEL,
    ),
)

THREADS = setting(
    "-t",
    "--threads",
    envvar="BITINFER_NUM_THREADS",
    type=Whole(1, MAX_THREADS),
    help=f"Threads, 1 to {MAX_THREADS} [default: the performance cores]",
    section=_MODEL,
)
QUIET_MODE = setting(
    "--quiet-mode/--no-quiet-mode",
    default=False,
    help="Fewest threads within 5 % of the fastest, if --threads is not given",
    section=_MODEL,
)
_LOADING = (
    setting(
        "-m",
        "--model",
        type=ModelFolder(),
        help="Model folder, or a name on the hub (docs/hub.md) [default: the embedded tales-14m]",
        section=_MODEL,
    ),
    *_LAYOUT,
    THREADS,
    QUIET_MODE,
    setting(
        "--context-length",
        type=Whole(2),
        help="Most tokens of prompt and reply [default: the model's]",
        section=_MODEL,
    ),
)
_DRAFTING = (
    setting(
        "--speculate",
        type=click.Choice(["auto", "ngram", "off"]),
        default="auto",
        show_default=True,
        help="Draft tokens where that is faster; the text stays the same",
        section=_MODEL,
    ),
    setting(
        "--draft-model",
        type=ModelFolder(),
        help="A smaller model with the same vocabulary that drafts [default: none]",
        section=_MODEL,
    ),
)


def _range(low: float, high: float) -> str:
    if high >= _LARGE:
        return f" [from {low:g}]" if low > 0 else ""
    return f" [{low:g} to {high:g}]" if low > -_LARGE else ""


def _text_of_file(_: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """The text of a file; a schema may also be given itself."""
    if value is None or (option.name == "json_schema" and value.lstrip().startswith("{")):
        return value
    return Path(value).read_text(encoding="utf-8", errors="replace")


_SAMPLING = (
    setting(
        "--max-tokens",
        type=Whole(1),
        help="Most tokens to generate [default: the model's]",
        section=_CHOICE,
    ),
    *(
        setting(
            f"--{name.replace('_', '-')}",
            type=SamplingValue(name),
            help=about["help"] + _range(about["low"], about["high"]),
            section=_CHOICE,
        )
        for name, about in SETTINGS.items()
    ),
)

_CONSTRAINTS = (
    click.option(
        "--grammar",
        type=click.Path(dir_okay=False),
        callback=_text_of_file,
        metavar="FILE",
        help="The text must match this Lark grammar",
    ),
    click.option("--regex", metavar="PATTERN", help="The text must match this regular expression"),
    click.option(
        "--json-schema",
        callback=_text_of_file,
        metavar="FILE|JSON",
        help="The text must be JSON of this schema",
    ),
)

session_option = setting(
    "--session",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep the KV cache here between runs, so that no prompt is read twice",
)
_HISTORY_FILE = setting(
    "--history-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Database of conversations [default: in the user's data folder]",
)
_HISTORY = (
    setting("--history/--no-history", default=True, help="Keep conversations [default: yes]"),
    _HISTORY_FILE,
)


def _add(command: Command, options: Sequence[Option]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def layout_options(command: Command) -> Command:
    """Add --packing, --head, --kv-cache, --ffn and --weights."""
    return _add(command, _LAYOUT)


def loading_options(command: Command) -> Command:
    """Add the options of `load_model`."""
    return _add(command, [*_LOADING, *_DRAFTING])


def serving_options(command: Command) -> Command:
    """Add those of them that a server has, which drafts nothing."""
    return _add(command, _LOADING)


def sampling_options(command: Command) -> Command:
    """Add the options of `Model.generate`; without a default, for the model has its own."""
    return _add(command, _SAMPLING)


def constraint_options(command: Command) -> Command:
    """Add --grammar, --regex and --json-schema."""
    return _add(command, _CONSTRAINTS)


def history_options(command: Command) -> Command:
    """Add --history, --no-history and --history-file."""
    return _add(command, _HISTORY)


def history_file_option(command: Command) -> Command:
    """Add --history-file."""
    return _add(command, [_HISTORY_FILE])


def _names(options: Sequence[Option]) -> frozenset[str]:
    command = click.command()(_add(lambda: None, options))
    return frozenset(parameter.name or "" for parameter in command.params)


# What may stand in the settings file before the tables: it holds for all commands that have it.
COMMON_SETTINGS = _names([*_LOADING, *_DRAFTING, *_SAMPLING, *_HISTORY])


def load_model(options: dict[str, Any]) -> Model:
    """Load the model that ``options`` name, and remove what names it; notes go to stderr."""
    from bitinfer.cli.model_argument import model_folder, text_model_folder
    from bitinfer.model import Model

    model, draft_model = options.pop("model"), options.pop("draft_model", None)
    threads = options.pop("threads")
    quiet = options.pop("quiet_mode") and threads is None
    loaded = Model.load(
        text_model_folder(model),
        packing=options.pop("packing"),
        head=options.pop("head"),
        kv_cache=options.pop("kv_cache"),
        ffn=options.pop("ffn"),
        weights=options.pop("weights"),
        num_threads=threads,
        context_length=options.pop("context_length"),
        speculate=options.pop("speculate", "off"),
        draft_model=None if draft_model is None else model_folder(draft_model),
        progress=sys.stderr.isatty(),
    )
    for note in loaded.engine.notes:
        click.echo(f"note: {note}", err=True)
    if quiet:
        take_quiet_threads(loaded.engine)
    return loaded


def take_quiet_threads(engine: Engine) -> None:
    """Set the threads of quiet mode; what was not tuned is measured."""
    from bitinfer.bench.tune import quiet_threads

    engine.num_threads = quiet_threads(engine)


def open_history(options: dict[str, Any]) -> History | None:
    """Open the history that ``options`` name, and remove what names it.

    None if it is switched off, or cannot be used: then a warning has been given.
    """
    path, wanted = options.pop("history_file"), options.pop("history")
    if not wanted:
        return None
    from bitinfer.errors import HistoryError
    from bitinfer.history import History, default_path

    try:
        return History.open(path.expanduser() if path else default_path())
    except HistoryError as error:
        warnings.warn(f"{error}; conversations are not kept", stacklevel=2)
        return None

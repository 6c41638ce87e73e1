"""``bitinfer train``: a text in, a model out; with an option for each field of `TrainConfig`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import click

from bitinfer.cli.field_option import FieldOption
from bitinfer.cli.options import Sections
from bitinfer.cli.plots import check_plots, plot_options
from bitinfer.train.config import TrainConfig, read_toml

_SECTIONS = {  # heading -> fields; `data` is an argument
    "Text": ("validation", "tokenizer", "vocab_size"),
    "Model": (
        *("start", "shape", "linear", "sub_norm", "num_groups", "threshold", "ternary_from"),
        "form",
    ),
    "Steps": (
        *("context_length", "steps", "batch_size", "gradient_accumulation_steps"),
        *("optimizer", "learning_rate", "learning_rate_2", "weight_decay", "weight_decay_2"),
        *("stage_2_from", "warmup_steps", "max_grad_norm", "seed", "precision", "compile"),
        *("validate_every", "save_every"),
    ),
}
_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "validation": {"multiple": True, "metavar": "FILE"},
    "shape": {"multiple": True, "metavar": "KEY=VALUE|FILE"},
    "tokenizer": {"metavar": "FOLDER"},
    "start": {"metavar": "FOLDER"},
}
_OF_THE_FILE = ("architectures", "quantization_config", "dtype", "torch_dtype")  # not of the shape


def _config_options(command: click.Command) -> click.Command:
    """Add an option for each field."""
    known = {field.name: field for field in fields(TrainConfig)}
    for section, names in _SECTIONS.items():
        for name in names:
            option = FieldOption(known[name], section, **_ATTRIBUTES.get(name, {}))
            command.params.append(option)
    return command


@_config_options
@click.command(
    cls=Sections,
    epilog="""\b
Examples:
  bitinfer train stories.txt run --validation held-out.txt
  bitinfer train stories.txt questions.txt:4 run --steps 3000 --plot run.svg
  bitinfer train run --recipe tales.toml
  bitinfer train task.jsonl run --start run/model --linear full
  bitinfer train run --resume
  torchrun --nproc-per-node 4 -m bitinfer train run --recipe tales.toml""",
)
@click.argument("data", nargs=-1)
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="TOML file with any of the settings below, and data; options go over it",
)
@click.option("--resume", is_flag=True, help="Go on with the run in OUT from its last checkpoint")
@plot_options
def train(
    data: tuple[str, ...],
    out: Path,
    recipe: Path | None,
    resume: bool,
    plots: tuple[Path, ...],
    theme: str,
    **given: Any,
) -> None:
    """Train a model on the text files DATA; the run is kept in OUT, the model in OUT/model.

    FILE:3 counts each document of a file three times. Documents stand between <s> and </s>; a file
    without these marks is one document. DATA may also be one .jsonl file of examples: objects with
    "prompt" and "completion", or with "text" and "label", of which only the answer is learned.
    """
    from bitinfer.cli.train_progress import train_progress

    check_plots(plots)
    config = _config(out, recipe, resume, {"data": data, **given})
    from bitinfer.train import train as run  # torch: after what can be refused without it

    try:
        with train_progress(config) as report:
            result = run(config, out, resume=resume, report=report)
    except KeyboardInterrupt:
        click.echo(f"stopped: 'bitinfer train {out} --resume' goes on from the last save", err=True)
        raise
    if not result.records:  # another process than the first
        return
    if plots:
        from bitinfer.train.plot import draw

        for path in plots:
            draw(result.records, path, theme=theme)
    size = sum(file.stat().st_size for file in result.folder.iterdir())
    click.echo(f"wrote {result.folder}: {size / 1e6:.1f} MB, loss {result.losses[-1]:.3f}")


def _config(out: Path, recipe: Path | None, resume: bool, given: dict[str, Any]) -> TrainConfig:
    """The run's own config or the defaults, under the recipe, under the options."""
    from bitinfer.train.run_folder import RunFolder

    config = RunFolder(out).read_config() if resume else TrainConfig()
    if recipe is not None:
        values = {**asdict(config), **read_toml(recipe)}
        config = TrainConfig.from_mapping(values, str(recipe))
    options = {name: value for name, value in given.items() if value not in (None, ())}
    if "shape" in options:
        options["shape"] = {**config.shape, **dict(_shape(options["shape"]))}
    return replace(config, **options)


def _shape(texts: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield the values of ``KEY=VALUE`` (JSON or a text) and of config.json files."""
    from bitinfer.errors import ConfigError
    from bitinfer.json_file import read_json_object

    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            found = read_json_object(Path(text), ConfigError)
            yield from ((name, found[name]) for name in found if name not in _OF_THE_FILE)
            continue
        try:
            yield key, json.loads(value)
        except ValueError:
            yield key, value

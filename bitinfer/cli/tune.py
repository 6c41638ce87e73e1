"""``bitinfer tune``: measure what is fastest here, keep it, show it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from bitinfer.cli.rounds import rounds_bar

if TYPE_CHECKING:
    from bitinfer.bench.race import Candidate, Trial
    from bitinfer.bench.tune import Tuning
    from bitinfer.tuning import Tuned

_WEIGHTS = {"mmap": "weights mapped", "copy": "weights in huge pages"}


@click.command(
    epilog="""\b
Examples:
  bitinfer tune bitnet-2b   when the machine has nothing else to do
  bitinfer tune --show
  bitinfer tune --clear     everything as it was before"""
)
@click.argument("model", required=False)
@click.option("--show", is_flag=True, help="Print what was tuned, and measure nothing")
@click.option("--clear", is_flag=True, help="Forget what was tuned, and measure nothing")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@click.pass_context
def tune(ctx: click.Context, model: str | None, show: bool, clear: bool, as_json: bool) -> None:
    """Measure what is fastest for MODEL (path or name; default: the embedded one), and keep it.

    Packings of the weights, the two ways to multiply a vector (GEMV), weights mapped or copied into
    huge pages, idle neurons read or skipped (FFN), and numbers of threads take turns. What wins is
    the default from then on, also for models of about the same size; what you say beats it.
    """
    if show + clear + (model is not None) > 1:
        raise click.UsageError("MODEL, --show and --clear: only one of them", ctx=ctx)
    if clear:
        _clear()
    elif show:
        _show(as_json)
    else:
        _tune(model, as_json)


def _clear() -> None:
    from bitinfer import tuning

    path = tuning.tuning_path()
    click.echo(f"removed {path}" if tuning.clear() else f"nothing was tuned: there is no {path}")


def _show(as_json: bool) -> None:
    from bitinfer import tuning

    kept = tuning.read()
    if as_json:
        click.echo(json.dumps([asdict(tuned) for tuned in kept], indent=2))
    elif kept:
        _print_kept(kept)
    else:
        click.echo("nothing was tuned: 'bitinfer tune MODEL' measures")


def _tune(model: str | None, as_json: bool) -> None:
    from bitinfer import tuning
    from bitinfer.bench.tune import tune as measure
    from bitinfer.cli.model_argument import model_folder

    tuning.prepare()  # before the measurement rather than after it
    folder = model_folder(model)
    with rounds_bar() as progress:
        found = measure(folder, progress=progress)
    path = tuning.keep(found.tuned)
    if as_json:
        click.echo(json.dumps({**asdict(found), "file": str(path)}, indent=2))
        return
    _print_trials(found)
    for text in found.doubts:
        click.echo(f"note: {text}", err=True)
    click.echo(_chosen(found))
    click.echo(f"kept in {path}")


def _print_trials(found: Tuning) -> None:
    from bitinfer.cli.table import console, print_table

    to, tuned = console(), found.tuned
    to.print(f"{tuned.name}: {tuned.isa} kernels, {found.rounds} rounds of decode")
    left = ["packing", "GEMV", "weights", "FFN"]
    rows = [[*left, "threads", *_RATES]]
    for trials in filter(None, (found.kernels, found.ffn, found.threads)):
        best = max(trial.tokens_per_s for trial in trials)
        rows += [[*_cells(trial.candidate), *_rates(trial, best)] for trial in trials]
        rows.append([""] * len(rows[0]))
    print_table(rows[:-1], to, left=left, drop=["slowest-fastest"])


_RATES = ["tokens/s", "slowest-fastest", "of best", "runs"]


def _cells(candidate: Candidate) -> list[str]:
    form = [candidate.packing, candidate.gemv, candidate.weights, candidate.ffn]
    return [*form, str(candidate.threads)]


def _rates(trial: Trial, best: float) -> list[str]:
    rate = trial.tokens_per_s
    spread = f"{min(trial.rates):,.1f}-{max(trial.rates):,.1f}"
    return [f"{rate:,.1f}", spread, f"{rate / best:.0%}", str(len(trial.rates))]


def _chosen(found: Tuning) -> str:
    """The choice, and how sure it is."""
    tuned, default = found.tuned, _way(found.default)
    if (tuned.packing, tuned.gemv, tuned.weights) == default:
        why = "the default kernels; nothing else was faster beyond doubt"
    else:
        why = (
            f"{found.gain:.2f} times as fast as the default ({', '.join(default)}),"
            f" in {found.wins} of {found.rounds} rounds"
        )
    return (
        f"chosen: {tuned.packing}, {tuned.gemv}, {_WEIGHTS[tuned.weights]}, {tuned.ffn} FFN,"
        f" {_threads(tuned.threads)}: {tuned.tokens_per_s:,.1f} tokens/s\n"
        f"  {why}\n"
        f"  in quiet mode: {_threads(tuned.quiet_threads)}"
    )


def _way(candidate: Candidate) -> tuple[str, str, str]:
    return candidate.packing, candidate.gemv, candidate.weights


def _print_kept(kept: Sequence[Tuned]) -> None:
    from bitinfer.cli.table import console, print_table

    left = ["model", "kernels", "packing", "GEMV", "weights", "FFN", "date"]
    rows = [["model", "kernels", "cores", *left[2:6], "threads", "quiet", "tokens/s", "date"]]
    for t in kept:
        counts: list[Any] = [t.threads, t.quiet_threads, f"{t.tokens_per_s:,.1f}", t.date[:10]]
        form = [t.packing, t.gemv, t.weights, t.ffn]
        rows.append([t.name, t.isa, str(t.cores), *form, *map(str, counts)])
    print_table(rows, console(), left=left, drop=["date", "cores", "tokens/s"])


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"

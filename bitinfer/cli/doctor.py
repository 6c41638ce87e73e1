"""``bitinfer doctor``: this machine, what is wrong with it, and what it can reach."""

from __future__ import annotations

import json
import sys
import textwrap
from typing import Any

import click

from bitinfer.cli.size import size_text

_INDENT = 12
_WIDTH = 80


@click.command(
    epilog="""\b
Examples:
  bitinfer doctor
  bitinfer doctor bitnet-2b --json"""
)
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object")
@click.pass_context
def doctor(ctx: click.Context, model: str | None, as_json: bool) -> None:
    """Test this machine and MODEL (path or name; default: the embedded one) in a few seconds.

    What it prints names no users and no folders, so that it can be pasted into a bug report. Exit
    code 1 if something is wrong.
    """
    if sys.stderr.isatty():
        click.echo("testing kernels, reading memory, measuring a model ...", err=True)
    from bitinfer.cli.model_argument import model_folder
    from bitinfer.doctor import diagnose

    facts = diagnose(model_folder(model))
    click.echo(json.dumps(facts, indent=2) if as_json else _report(facts))
    ctx.exit(1 if facts["problems"] else 0)


def _report(facts: dict[str, Any]) -> str:
    lines = [
        *_entry("versions", _versions(facts["versions"])),
        *_entry("compiler", facts["versions"]["compiler"]),
        *_entry("cpu", _cpu(facts["cpu"])),
        *_kernels(facts),
        *_entry("tuning", _tuning(facts["tuning"])),
        *_entry("memory", _memory(facts["memory"])),
        *_entry("caches", _caches(facts["caches"])),
        *_entry("system", _system(facts["system"])),
        *_entry("settings", ", ".join(f"{k}={v}" for k, v in facts["environment"].items())),
        *_entry("reads", _bandwidth(facts["bandwidth"])),
        *_entry("model", _model(facts["model"])),
    ]
    for title, key in (("Problems", "problems"), ("What it means", "meaning")):
        if facts[key]:
            lines += ["", title]
            for sentence in facts[key]:
                lines += textwrap.wrap(
                    sentence, _WIDTH, initial_indent="- ", subsequent_indent="  "
                )
    return "\n".join(lines)


def _entry(name: str, text: str) -> list[str]:
    """A name, and a text that is wrapped beside it; nothing where there is no text.

    A space that must not end a line is written as U+00A0.
    """
    lines = textwrap.wrap(text, _WIDTH - _INDENT, break_long_words=False, break_on_hyphens=False)
    heads = [name] + [""] * (len(lines) - 1) if lines else []
    return [
        f"{head:<{_INDENT}}{line}".replace("\xa0", " ")
        for head, line in zip(heads, lines, strict=True)
    ]


def _versions(versions: dict[str, str]) -> str:
    order = ["bitinfer", "python", "system", "libc"]
    rest = [name for name in versions if name not in (*order, "compiler")]
    shown = {name: f"{name} {versions[name]}" for name in (*order, *rest)}
    shown |= {name: versions[name] for name in ("system", "libc")}
    return ", ".join(text.replace(" ", "\xa0") for text in shown.values())


def _cpu(cpu: dict[str, Any]) -> str:
    quota = "" if cpu["quota"] is None else f", quota of {cpu['quota']:g}"
    return (
        f"{cpu['name']}: {cpu['cores']} cores to use, {cpu['logical_cpus']} logical CPUs{quota};"
        f" {cpu['threads']} threads by default"
    )


def _kernels(facts: dict[str, Any]) -> list[str]:
    lines = []
    for index, row in enumerate(facts["isas"]):
        if not row["usable"]:
            state = row["reason"]
        else:
            state = f"self-test FAILED: {row['self_test']}" if row["self_test"] else "self-test ok"
            if row["active"]:
                state += f"; in use, best with {facts['packing']} ({facts['gemv']})"
        name = "" if index else "kernels"
        lines += _entry(name, f"{row['name']:<11} {state}") or []
    return lines


def _tuning(tuning: dict[str, Any]) -> str:
    if tuning["problem"]:
        return str(tuning["problem"]).removeprefix("tuning: ")
    if not tuning["models"]:
        return "none: 'bitinfer tune MODEL' measures what is fastest here"
    models = f"{tuning['models']} model{'s' * (tuning['models'] > 1)}"
    return f"{models}, last {tuning['date'][:10]}"


def _memory(memory: dict[str, Any]) -> str:
    def size(name: str) -> str:
        return "?" if memory[name] is None else size_text(memory[name])

    parts = [f"{size('total')}, {size('available')} available"]
    parts.append(f"swap {size('swap_total')}" if memory["swap_total"] else "no swap")
    limit = memory["cgroup_limit"]
    parts.append("no cgroup limit" if limit is None else f"cgroup limit {size_text(limit)}")
    return ", ".join(parts)


def _caches(caches: list[dict[str, Any]]) -> str:
    return ", ".join(
        f"L{cache['level']} {_binary_size(cache['bytes'])}"
        + (f" for {cache['shared_by']} CPUs" if cache["shared_by"] > 1 else "")
        for cache in caches
    )


def _binary_size(count: int) -> str:
    """As makers of CPUs give it: powers of 1024."""
    return f"{count / 2**10:g} KiB" if count < 2**20 else f"{count / 2**20:g} MiB"


def _system(system: dict[str, Any]) -> str:
    known = dict(system)
    load = known.pop("load")
    shown = [
        f"{name.replace('_', ' ')}: {'not told' if value is None else value}"
        for name, value in known.items()
    ]
    return ", ".join(shown) + ("" if load is None else f", load: {load:.1f}")


def _bandwidth(rates: list[dict[str, Any]]) -> str:
    shown = [
        f"{r['gb_per_s']:.1f} GB/s with {r['threads']} thread{'s' * (r['threads'] > 1)}"
        for r in rates
    ]
    size = size_text(rates[0]["bytes"]).replace(" ", "\xa0")
    return f"{', '.join(shown)} (a buffer of {size})"


def _model(model: dict[str, Any]) -> str:
    if not model["ok"]:
        return f"{model['name']}: cannot be used"
    notes = "".join(f"; {note}" for note in model["notes"])
    return (
        f"{model['name']}: files ok, {model['family']}, {size_text(model['file_bytes'])},"
        f" {model['packing']}, {model['head']} head{notes}"
    )

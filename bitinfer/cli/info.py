"""``bitinfer info``: what a model is, and what this machine can do with it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from bitinfer.cli.notes import packed_notes
from bitinfer.cli.size import size_text

if TYPE_CHECKING:
    from bitinfer.model import Model


@click.command(
    epilog="""\b
Examples:
  bitinfer info
  bitinfer info my-model --json | jq .model.bytes_per_token"""
)
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object")
def info(model: str | None, as_json: bool) -> None:
    """Show MODEL (path or name; default: the embedded one) and this machine."""
    from bitinfer import __version__
    from bitinfer.cli.model_argument import model_folder
    from bitinfer.model import Model

    with Model.load(model_folder(model)) as loaded:
        of_model, of_machine = model_facts(loaded), machine_facts()
    if as_json:
        facts = {"version": __version__, "model": of_model, "machine": of_machine}
        click.echo(json.dumps(facts, indent=2))
    else:
        click.echo("\n".join([*_lines(of_model), "", *_lines(of_machine)]))


def model_facts(model: Model) -> dict[str, Any]:
    """Facts of a loaded model; sizes in bytes."""
    from bitinfer.families.spec import num_parameters
    from bitinfer.model_folder import file_bytes

    engine, spec = model.engine, model.engine.spec
    read = engine.bytes_per_token()
    return {
        "path": str(model.path),
        "family": spec["model_type"],
        "parameters": num_parameters(spec),
        "layers": spec["num_hidden_layers"],
        "hidden_size": spec["hidden_size"],
        "vocab_size": spec["vocab_size"],
        "context_length": model.context_length,
        "packing": engine.packing,
        "weight_scales": _weight_scales(spec),
        "activations": "15 bits" if spec["activation_levels"] > 128 else "8 bits",
        "head": engine.head,
        "kv_cache": engine.kv_cache,
        "file_bytes": file_bytes(model.path),
        "bytes_per_token": read,
        "chat_template": model.has_chat_template,
        "notes": [*packed_notes(model.path), *engine.notes],
    }


def _weight_scales(spec: Mapping[str, Any]) -> str:
    if spec["scale_group_size"]:
        return f"one for each row and {spec['scale_group_size']} columns"
    if spec["scale_group_count"]:
        return f"one for each row and 1/{spec['scale_group_count']} of the columns"
    return "one for each matrix"


def machine_facts() -> dict[str, Any]:
    """Facts of this machine and of what is used of it."""
    from bitinfer import runtime
    from bitinfer.cpu_count import performance_cores
    from bitinfer.hardware import memory_bytes
    from bitinfer.machine import cpu_name

    active = runtime.active_isa()
    return {
        "cpu": cpu_name(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": performance_cores(),
        "logical_cpus": os.cpu_count() or 1,
        "threads": runtime.num_threads(),
        "memory_bytes": memory_bytes(),
        "available_isas": runtime.available_isas(),
        "active_isa": active,
        "gemv": {name: runtime.gemv_family(name) for name in ("i2", "t3", "t5", "b1")},
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    """One line a fact, for people."""
    return [
        f"{name.removesuffix('_bytes').replace('_', ' '):<15} {_shown(name, value)}"
        for name, value in facts.items()
    ]


def _shown(name: str, value: Any) -> str:
    if isinstance(value, dict):
        sizes = name.startswith("bytes")
        parts = (f"{k.replace('_', ' ')} {size_text(v) if sizes else v}" for k, v in value.items())
        return f"\n{'':<16}".join(parts) if sizes else ", ".join(parts)
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_bytes") and value is not None:
        return size_text(value)
    return f"{value:,}" if isinstance(value, int) else str(value)

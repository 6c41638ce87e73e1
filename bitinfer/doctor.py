"""What this machine is to bitinfer: facts, a few seconds of measurement, and what they mean.

It names no users, hosts or folders, so that what it says can be pasted into a bug report. Whatever
is wrong becomes a problem in the diagnosis, not an exception.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bitinfer import hardware, runtime, tuning
from bitinfer.bench import Roofline, bench
from bitinfer.cpu_count import cpu_quota, performance_cores
from bitinfer.errors import BitinferError, ConfigError, UnsupportedIsaError
from bitinfer.machine import cpu_name
from bitinfer.model import Model
from bitinfer.model_folder import file_bytes

_LIBRARIES = ("numpy", "tokenizers", "safetensors", "jinja2", "click", "rich", "prompt-toolkit")
_VARIABLES = ("BITINFER_ISA", "BITINFER_GEMV", "BITINFER_NUM_THREADS")
# bitnet-b1.58-2B-4T: ternary weights, and the values of its head.
_TERNARY_2B = 2_084_044_800
_HEAD_2B = 128_256 * 2560
_READ_BYTES = (128 << 20, 1 << 30)  # least and most of the buffer that is read
_DECODE_S = 0.5  # about what each of two measured decodes takes
_MOST_TOKENS = 64


def diagnose(model: Path) -> dict[str, Any]:
    """Look at this machine, test its kernels, measure memory and a model; takes a few seconds.

    Args:
        model: The folder of the model to load and measure.

    Returns:
        A JSON object: ``versions``, ``cpu``, ``isas``, ``tuning``, ``memory``, ``caches``,
        ``system``, ``environment``, ``bandwidth``, ``model``, ``problems`` and ``meaning``, the
        last two lists of sentences. Sizes are in bytes, rates in 10^9 bytes or tokens a second.
    """
    problems: list[str] = []
    isa, threads = _settle(problems)
    facts: dict[str, Any] = {
        "versions": _versions(),
        "cpu": {
            "name": cpu_name(),
            "cores": performance_cores(),
            "logical_cpus": os.cpu_count(),
            "quota": cpu_quota(),
            "threads": threads,
        },
        "isas": _isas(isa, problems),
        "packing": runtime.auto_packing(),
        "gemv": runtime.gemv_family(runtime.auto_packing()),
        "tuning": _tuning(),
        "memory": asdict(hardware.memory()),
        "caches": [asdict(cache) for cache in hardware.caches()],
        "system": {
            "numa_nodes": hardware.numa_nodes(),
            "governor": hardware.clock_governor(),
            "huge_pages": hardware.huge_pages(),
            "load": hardware.load(),
        },
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }
    facts["bandwidth"] = _bandwidth(threads, facts)
    facts["model"] = _model(model, threads, problems)
    facts["problems"] = problems
    facts["meaning"] = meaning(facts)
    return facts


def meaning(facts: dict[str, Any]) -> list[str]:
    """What the facts of `diagnose` say, in sentences."""
    read = facts["bandwidth"][-1]
    sentences = []
    packing = facts["packing"]
    bytes_2b = _TERNARY_2B * runtime.bits_per_weight(packing) / 8 + _HEAD_2B
    sentences.append(
        f"This machine reads {read['gb_per_s']:.1f} GB/s with {_threads(read['threads'])}. A"
        f" ternary model of 2 billion weights (bitnet-b1.58-2B-4T, {bytes_2b / 1e6:.0f} MB a token"
        f" in {packing}) can reach at most {read['gb_per_s'] * 1e9 / bytes_2b:.0f} tokens/s here."
    )
    sentences += _meaning_of_model(facts["model"], facts["caches"])
    sentences += _warnings(facts)
    return sentences


def _settle(problems: list[str]) -> tuple[str, int]:
    """The row and the threads in use; wrong environment variables are told and passed over."""
    try:
        runtime.active_isa()
    except UnsupportedIsaError as error:
        problems.append(str(error))
        runtime.reset_dispatch()
    try:
        threads = runtime.num_threads()
    except ConfigError as error:
        problems.append(str(error))
        threads = performance_cores()
    return runtime.active_isa(), threads


def _versions() -> dict[str, str]:
    found = {"bitinfer": runtime.version(), "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    found["compiler"] = runtime.compiler()
    found["system"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    found["libc"] = " ".join(platform.libc_ver()) or sys.platform
    return found


def _tuning() -> dict[str, Any]:
    """What ``bitinfer tune`` kept: how many models, the newest date, and why it is not used."""
    try:
        kept = tuning.read()
    except ConfigError as error:
        path = tuning.tuning_path()
        return {"models": 0, "date": None, "problem": str(error).replace(str(path), path.name)}
    return {"models": len(kept), "date": max((t.date for t in kept), default=None), "problem": None}


def _isas(active: str, problems: list[str]) -> list[dict[str, Any]]:
    rows = []
    for row in runtime.isa_report():
        difference = runtime.self_test(row["name"]) if row["usable"] else None
        if difference:
            problems.append(
                f"kernels of {row['name']} are wrong here ({difference}): please report it, and set"
                " BITINFER_ISA to another row"
            )
        rows.append({**row, "active": row["name"] == active, "self_test": difference})
    return rows


def _bandwidth(threads: int, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Reads of a buffer that the caches do not hold, with one thread and with all."""
    largest = max((cache["bytes"] for cache in facts["caches"]), default=0)
    least, most = _READ_BYTES
    size = min(most, max(least, 4 * largest))
    memory = facts["memory"]
    limits = [memory[name] for name in ("available", "cgroup_limit") if memory[name]]
    size = min([size, *(limit // 4 for limit in limits)])
    rates = []
    for count in dict.fromkeys((1, threads)):
        roofline = Roofline(size, count)
        for _ in range(2):
            roofline.read()
        rates.append({"threads": count, "bytes": size, "gb_per_s": roofline.gb_per_s})
    return rates


def _model(folder: Path, threads: int, problems: list[str]) -> dict[str, Any]:
    """Load a model with its text files, and measure its decode."""
    try:
        with Model.load(folder, num_threads=threads) as model:
            engine = model.engine
            prompt = model.tokenizer.encode("Once upon a time")
            start = time.perf_counter()
            model.logits(prompt[:1])
            tokens = max(1, int(_DECODE_S / (time.perf_counter() - start)))
            tokens = min(tokens, _MOST_TOKENS, engine.context_length - 2)
            (record,) = bench(engine, prompts=[], generated=[tokens], repeats=2, warmup=0)
            return {
                "name": folder.name,
                "ok": True,
                "family": engine.spec["model_type"],
                "packing": engine.packing,
                "head": engine.head,
                "file_bytes": file_bytes(folder),
                "bytes_per_token": record.bytes_per_token,
                "decode_tokens": record.tokens,
                "tokens_per_s": record.tokens_per_s,
                "roofline_gb_per_s": record.roofline_gb_per_s,
                "notes": [_private(note, folder) for note in engine.notes],
            }
    except (BitinferError, OSError) as error:
        problems.append(_private(f"model: {error}", folder))
        return {"name": folder.name, "ok": False}


def _meaning_of_model(model: dict[str, Any], caches: list[dict[str, Any]]) -> list[str]:
    if not model["ok"]:
        return []
    speed, num_bytes = model["tokens_per_s"], model["bytes_per_token"]
    reached = f"{model['name']} was measured here: it decodes {speed:,.1f} tokens/s"
    if num_bytes <= max((cache["bytes"] for cache in caches), default=0):
        return [
            f"{reached}. One token's {num_bytes / 1e6:.1f} MB fit into a cache, so this says"
            " nothing about larger models: name the folder of one to measure it."
        ]
    limit = model["roofline_gb_per_s"] * 1e9 / num_bytes
    return [
        f"{reached}, {speed / limit:.0%} of the {limit:.0f} that memory allows at"
        f" {num_bytes / 1e6:.0f} MB a token ({model['roofline_gb_per_s']:.1f} GB/s, read in the"
        " same run)."
    ]


def _warnings(facts: dict[str, Any]) -> list[str]:
    """What slows this machine down and can be mended."""
    sentences = []
    memory, system, cpu = facts["memory"], facts["system"], facts["cpu"]
    if system["governor"] not in (None, "performance", "schedutil"):
        sentences.append(
            f"The clock governor is {system['governor']}: 'performance' measures more evenly."
        )
    if (system["numa_nodes"] or 1) > 1:
        sentences.append(
            f"Memory lies at {system['numa_nodes']} nodes: binding bitinfer to one of them"
            " (numactl -N 0 -m 0) may be faster."
        )
    if cpu["quota"] is not None and cpu["quota"] < cpu["cores"]:
        sentences.append(f"The control group allows {cpu['quota']:g} CPUs.")
    if memory["cgroup_limit"] is not None:
        sentences.append(
            f"The control group allows {memory['cgroup_limit'] / 1e9:.1f} GB of memory: larger"
            " models are ended by the system or read from disk again and again."
        )
    if memory["swap_total"] and memory["swap_free"] < memory["swap_total"] // 2:
        sentences.append("More than half of the swap is used: weights may be read from disk.")
    if system["load"] is not None and system["load"] > cpu["cores"] / 4:
        sentences.append(
            f"Other programs were running (load {system['load']:.1f}): on a quiet machine the"
            " figures may be higher."
        )
    return sentences


def _private(text: str, folder: Path) -> str:
    """``text`` without the place of ``folder`` and without names of users."""
    text = text.replace(str(folder), folder.name).replace(str(Path.home()), "~")
    return re.sub(r"(/home|/Users)/[^/\s:]+", "~", text)


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"

"""Anonymous memory of a conversion, measured on synthetic checkpoints of more than 1 GB.

Promise: below 1.3 x the largest tensor + 200 MB. ``python benchmarks/convert_memory.py`` writes the
checkpoints to a temporary folder (3 GB of disk), converts each in a process of its own and adds a
record to ``records/convert-memory/``. The suite runs ``--measure`` on a small one. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
# The 2B-4T shape as published, and ten of its layers as masters with a smaller vocabulary.
_SHAPE = {
    "architectures": ["BitNetForCausalLM"],
    "model_type": "bitnet",
    "hidden_size": 2560,
    "intermediate_size": 6912,
    "num_attention_heads": 20,
    "num_key_value_heads": 5,
    "max_position_embeddings": 4096,
    "hidden_act": "relu2",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
}
FORMS = {
    "packed": {"num_hidden_layers": 30, "vocab_size": 128256, "quantization_mode": "offline"},
    "master": {"num_hidden_layers": 10, "vocab_size": 32000, "quantization_mode": "online"},
}


def write_checkpoint(folder: Path, form: str) -> None:
    """Write config.json and one safetensors file of random values, a block at a time."""
    from bitinfer.config import ModelConfig
    from bitinfer.families.spec import float_shapes, make_spec, ternary_shapes

    options: dict[str, Any] = dict(FORMS[form])
    mode = options.pop("quantization_mode")
    dialect = {"linear_class": "autobitlinear", "quantization_mode": mode}
    config = {**_SHAPE, **options, "quantization_config": {"quant_method": "bitnet", **dialect}}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    spec = make_spec(ModelConfig.from_dict(config), attn_sub_norm=True, ffn_sub_norm=True)
    tensors = {name: ("BF16", shape) for name, shape in float_shapes(spec).items()}
    for name, (n, k) in ternary_shapes(spec).items():
        tensors[name] = ("BF16", (n, k)) if form == "master" else ("U8", (n // 4, k))
        if form == "packed":
            tensors[f"{name}_scale"] = ("BF16", (1,))
    header: dict[str, Any] = {}
    at = 0
    for name, (dtype, shape) in tensors.items():
        size = int(np.prod(shape)) * (2 if dtype == "BF16" else 1)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    rng = np.random.default_rng(0)
    normal = (rng.standard_normal(1 << 20, np.float32).view(np.uint32) >> 16).astype("<u2")
    codes = rng.integers(0, 3, (4, 1 << 21), np.uint8)
    block = {
        "BF16": normal.tobytes(),
        "U8": (codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6).tobytes(),
    }
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, (dtype, _) in tensors.items():
            begin, end = header[name]["data_offsets"]
            data = b"\x80\x3f" if name.endswith("_scale") else block[dtype]  # bf16 1.0
            for done in range(begin, end, len(data)):
                file.write(data[: end - done])


def measure(source: Path, target: Path, packing: str) -> dict[str, Any]:
    """Convert in this process; bytes of anonymous memory before and at most, and seconds."""
    from bitinfer.convert import convert

    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, _anonymous_bytes())

    before = _anonymous_bytes()
    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    convert(source, target, packing=packing)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return {"before_bytes": before, "peak_bytes": max(peak, before), "convert_s": round(seconds, 2)}


def run_form(form: str, packing: str) -> dict[str, Any]:
    """One record: make the checkpoint, convert it in a process of its own, compare the bound."""
    from bitinfer.formats.safetensors import Checkpoint

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / form
        write_checkpoint(source, form)
        sizes = [info.end - info.begin for info in Checkpoint(source).tensors.values()]
        command = [sys.executable, __file__, "--measure", str(source), f"{folder}/out"]
        command += ["--packing", packing]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        record: dict[str, Any] = {
            "form": form,
            "packing": packing,
            "checkpoint_bytes": sum(sizes),
            "largest_tensor_bytes": max(sizes),
            "bound_bytes": int(1.3 * max(sizes)) + 200_000_000,
            **json.loads(done.stdout),
        }
    return record


def _anonymous_bytes() -> int:
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split("RssAnon:")[1].split()[0])


def main() -> None:
    """Run as the module's docstring says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", nargs=2, metavar=("SRC", "DST"), type=Path)
    parser.add_argument("--packing", default="t5", choices=["i2", "t3", "t5"])
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure, options.packing)))
        return
    from bitinfer.machine import machine_facts

    facts = machine_facts(HERE)
    records = [{**run_form(form, options.packing), **facts} for form in FORMS]
    folder = HERE / "records" / "convert-memory"
    folder.mkdir(parents=True, exist_ok=True)
    cpu = "-".join(str(facts["cpu"]).lower().replace("(r)", "").split())
    path = folder / f"{facts['date'][:10]}-{cpu}-{facts['commit'] or 'uncommitted'}.json"
    path.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    for record in records:
        print(f"{record['form']}: peak {record['peak_bytes']:,} of {record['bound_bytes']:,} bytes")
    if any(record["peak_bytes"] >= record["bound_bytes"] for record in records):
        raise SystemExit("the bound is broken")


if __name__ == "__main__":
    main()

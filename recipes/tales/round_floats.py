"""Round the floats of a packed checkpoint to bfloat16, in place: half the bytes of the embedding.

    python recipes/tales/round_floats.py MODEL

Ternary weights stay what they are; their scales then are numbers of float16, too, so that a GGUF
file of TQ1_0 or TQ2_0 holds the same model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from bitinfer.formats.new_file import replace_file


def round_floats(folder: Path) -> None:
    """Rewrite ``model.safetensors`` and the dtype in ``config.json``."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if tensor.dtype == torch.float32:
            tensors[name] = tensor.bfloat16()
    fresh = path.with_suffix(".rounded")
    save_file(tensors, fresh, {"format": "pt"})
    fresh.replace(path)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    replace_file(
        folder / "config.json", json.dumps(config | {"dtype": "bfloat16"}, indent=2) + "\n"
    )


if __name__ == "__main__":
    round_floats(Path(sys.argv[1]))

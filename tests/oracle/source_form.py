"""From a packed folder back to the Hugging Face checkpoint of the same weights, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from checkpoints import hf_pack
from safetensors.torch import save_file

from bitinfer import _core
from bitinfer.families.spec import HEAD
from bitinfer.formats.packed import PACKED_NAME, PackedFile

_TORCH_DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


def write_source_form(packed_folder: Path, folder: Path) -> Path:
    """Write ``packed_folder`` (tied embedding) as an offline autobitlinear checkpoint.

    Ternary matrices become two-bit uint8 with an fp32 ``weight_scale`` that multiplies; other
    floats stay as they are; the int8 head is left out.
    """
    file = PackedFile(packed_folder / PACKED_NAME)
    assert file.header.spec["tie_word_embeddings"]
    tensors: dict[str, torch.Tensor] = {}
    for name in file:
        data, dtype, shape = file.tensor(name)
        if name in file.header.ternary:
            tensors[name] = torch.from_numpy(hf_pack(_core.unpack(data, dtype, *shape)))
        elif not name.startswith(HEAD.removesuffix("weight")):
            flat = torch.from_numpy(np.array(data))
            tensors[name] = flat.view(_TORCH_DTYPES[dtype]).reshape(shape)
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((packed_folder / "config.json").read_text())
    assert config["quantization_config"]["linear_class"] == "autobitlinear"
    (folder / "config.json").write_text(json.dumps(config))
    return folder

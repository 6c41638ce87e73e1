"""BitDistill students: Qwen3 with norms before o_proj and down_proj, by transformers' own modules.

No published student names these norms (formats: "accept any of"), so each spelling must give the
same bits, and one of them the logits of transformers' Qwen3 with its RMSNorm put in.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from comparisons import assert_like_fp32, distances
from conftest import comparable_engine
from random_models import random_text
from safetensors.torch import load_file, save_file
from test_checkpoints import DIALECTS, SHAPE, write_with_transformers
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm
from transformers_oracle import Oracle

SPELLINGS = [
    ("self_attn.attn_sub_norm", "mlp.ffn_sub_norm"),
    ("self_attn.inner_attn_ln", "mlp.ffn_layernorm"),
    ("self_attn.o_proj.norm", "mlp.down_proj.norm"),
    ("self_attn.o_proj.rms_norm", "mlp.down_proj.rms_norm"),
]
PLACES = (("self_attn", "o_proj"), ("mlp", "down_proj"))


def write_student(folder: Path, dialect: str, spelling: tuple[str, str], seed: int) -> Path:
    """A random Qwen3 checkpoint with sub-norms of random gains."""
    write_with_transformers(folder, "qwen3", DIALECTS[dialect], torch.float32, seed)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    widths = (
        json.loads((folder / "config.json").read_text())["head_dim"] * SHAPE["num_attention_heads"],
        SHAPE["intermediate_size"],
    )
    for layer in range(SHAPE["num_hidden_layers"]):
        for name, width in zip(spelling, widths, strict=True):
            gain = 1 + 0.3 * torch.randn(width)
            tensors[f"model.layers.{layer}.{name}.weight"] = gain
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


class Student(Oracle):
    """transformers' Qwen3, which knows no sub-norms, with them in."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        super().__init__(folder, dtype)
        tensors = load_file(folder / "model.safetensors")
        for i, layer in enumerate(self.model.model.layers):
            for (part, projection), name in zip(PLACES, SPELLINGS[0], strict=True):
                gain = tensors[f"model.layers.{i}.{name}.weight"]
                norm = Qwen3RMSNorm(len(gain), eps=self.model.config.rms_norm_eps)
                norm.weight.data = gain.to(dtype)
                self.double(norm)
                module = getattr(layer, part)
                inner = torch.nn.Sequential(norm, getattr(module, projection))
                setattr(module, projection, inner)


@pytest.mark.parametrize("dialect", ["multiplies", "online"])
def test_students_are_qwen3_with_sub_norms(dialect, tmp_path):
    ours, theirs = [], []
    for seed in range(6):
        folder = write_student(tmp_path / str(seed), dialect, SPELLINGS[0], seed)
        ids = random_text(SHAPE["vocab_size"], 25, seed)
        exact = Student(folder, torch.float64).logits(ids)
        ours.append(distances(comparable_engine(folder).logits(ids), exact))
        theirs.append(distances(Student(folder, torch.float32).logits(ids), exact))
    assert_like_fp32(ours, theirs)
    assert np.median(np.concatenate(ours)) < 0.1 * np.abs(exact).max()


def test_every_spelling_of_the_sub_norms_is_the_same_model(tmp_path):
    ids = random_text(SHAPE["vocab_size"], 25, 0)
    logits = [
        comparable_engine(write_student(tmp_path / str(i), "multiplies", spelling, 0)).logits(ids)
        for i, spelling in enumerate(SPELLINGS)
    ]
    for other in logits[1:]:
        assert np.array_equal(logits[0], other)

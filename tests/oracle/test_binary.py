"""The binary BitNet of arXiv 2310.11453: transformers' Llama with the paper's projections.

No library has them; ``BinaryLinear`` is written from the paper (formats 1f), group by group.
"""

import json

import numpy as np
import pytest
import torch
from bitlinear_models import BitLinear, bitlinear_oracle
from comparisons import assert_argmax_like_fp32, assert_like_fp32, distances
from conftest import comparable_engine
from random_models import random_text
from safetensors.torch import save_file
from test_checkpoints import SHAPE
from transformers import LlamaConfig, LlamaForCausalLM

from bitinfer.convert import convert
from bitinfer.engine import Engine

EPS = 1e-5


class BinaryLinear(torch.nn.Module):
    """``sum over groups of sign(W - alpha) . Quant(LN(x)) * beta * gamma / 128``."""

    def __init__(self, master: torch.Tensor, groups: int) -> None:
        super().__init__()
        n, k = master.shape
        w = master.double().reshape(n, groups, k // groups)
        alpha = w.mean(dim=(0, 2), keepdim=True).float().double()
        self.weight = torch.nn.Parameter(torch.where(w > alpha, 1.0, -1.0), requires_grad=False)
        beta = w.abs().mean(dim=(0, 2)).float()
        self.beta = torch.nn.Parameter(beta, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, groups, width = self.weight.shape
        x = x.unflatten(-1, (groups, width))
        x = torch.nn.functional.layer_norm(x, (width,), eps=EPS)
        gamma = x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
        codes = (x * (128 / gamma)).round().clamp(-128, 127)
        sums = torch.einsum("btgk,ngk->btgn", codes, self.weight.to(x.dtype))
        return (sums * (gamma / 128) * self.beta[:, None]).sum(dim=-2)


def write_binary(folder, groups, seed):
    """A random Llama of masters that are not centred; transformers writes it."""
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(folder)
    tensors = dict(LlamaForCausalLM.from_pretrained(folder).state_dict())
    for name, tensor in tensors.items():
        if name.endswith("_proj.weight"):
            shift = torch.linspace(-0.3, 0.4, groups).repeat_interleave(tensor.shape[1] // groups)
            tensors[name] = tensor + shift
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "bitnet",
        "linear_class": "binary",
        "num_groups": groups,
        "layer_norm_eps": EPS,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def oracle(folder, groups, dtype):
    model = bitlinear_oracle(folder, torch.float32, levels=None, masters=False)
    for name, module in list(model.model.named_modules()):
        if isinstance(module, BitLinear):
            parent, _, kind = name.rpartition(".")
            setattr(model.model.get_submodule(parent), kind, BinaryLinear(module.weight, groups))
    return type(model)(folder, dtype, model.model)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_logits_are_those_of_the_papers_formula(groups, tmp_path):
    ours, theirs, exact = [], [], []
    for seed in range(12):
        folder = write_binary(tmp_path / str(seed), groups, seed)
        ids = random_text(SHAPE["vocab_size"], 45, seed)
        exact.append(oracle(folder, groups, torch.float64).logits(ids))
        theirs.append(oracle(folder, groups, torch.float32).logits(ids))
        ours.append(comparable_engine(folder).logits(ids))
    near, far = (
        [distances(a, e) for a, e in zip(rows, exact, strict=True)] for rows in (ours, theirs)
    )
    assert_like_fp32(near, far)
    assert_argmax_like_fp32(ours, theirs, exact)


def test_binary_models_are_packed_in_one_bit(tmp_path):
    folder = write_binary(tmp_path / "hf", 2, 0)
    packed = convert(folder, tmp_path / "packed")
    engine = Engine.load(packed)
    assert engine.packing == "b1"
    ids = random_text(SHAPE["vocab_size"], 45, 0)
    assert np.array_equal(engine.logits(ids), Engine.load(folder, packing="t5").logits(ids))

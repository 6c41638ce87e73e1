"""Checkpoints that declare nothing: 1bitLLM's masters, models made ternary, TriLM, Bonsai."""

import numpy as np
import pytest
import torch
from bitlinear_models import bitlinear_oracle
from checkpoints import DENSE, ONEBIT, tiny_checkpoint, write_checkpoint
from comparisons import assert_like_fp32, distances
from conftest import comparable_engine
from random_models import random_text
from test_scaled_checkpoints import BONSAI, LAYOUTS, TRILM, scaled_tensors

from bitinfer.convert import convert

SMALL = {"num_hidden_layers": 2, "vocab_size": 150, "max_position_embeddings": 256}
ONEBIT_SHAPES = {  # head_dim and intermediate sizes of -large, -xl and -3B, the rest smaller
    "large": {"head_dim": 96, "num_attention_heads": 2, "intermediate_size": 4096},
    "xl": {"head_dim": 64, "num_attention_heads": 3, "intermediate_size": 5460},
    "3B": {"head_dim": 100, "num_attention_heads": 2, "intermediate_size": 8640},
}
FAMILIES = {
    "llama": {},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"},
}


def assert_like_the_oracle(folders, model_of, seeds, length=25):
    ours, theirs = [], []
    for seed in seeds:
        folder, loaded = folders(seed)
        ids = random_text(SMALL["vocab_size"], length, seed)
        exact = model_of(folder, torch.float64).logits(ids)
        ours.append(distances(comparable_engine(loaded).logits(ids), exact))
        theirs.append(distances(model_of(folder, torch.float32).logits(ids), exact))
    assert_like_fp32(ours, theirs)
    assert np.median(np.concatenate(ours)) < 1e-4 * np.abs(exact).max()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("name", ONEBIT_SHAPES)
def test_1bitllm_is_what_its_formulas_say(name, dtype, tmp_path):
    config = {**ONEBIT, **SMALL, **ONEBIT_SHAPES[name]}
    heads = config["num_attention_heads"]
    config |= {"num_key_value_heads": heads, "hidden_size": heads * config["head_dim"]}

    def folders(seed):
        folder = tiny_checkpoint(
            tmp_path / str(seed), config, seed=seed, form="master", dtype=dtype
        )
        return folder, folder

    def model_of(folder, precision):
        return bitlinear_oracle(folder, precision, levels=127, masters=True)

    assert_like_the_oracle(folders, model_of, range(3))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_made_ternary_is_transformers_model_of_these_weights(name, tmp_path):
    config = {**DENSE, **SMALL, **FAMILIES[name], "hidden_size": 96, "intermediate_size": 160}

    def folders(seed):
        folder = tiny_checkpoint(tmp_path / str(seed), config, seed=seed, form="master")
        packed = convert(folder, tmp_path / f"{seed}.packed", head="source", ternarize="absmean")
        return folder, packed

    def model_of(folder, precision):
        return bitlinear_oracle(folder, precision, levels=127, masters=True)

    assert_like_the_oracle(folders, model_of, range(3))


def test_yarn_turns_as_in_transformers(tmp_path):
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    config = {**BONSAI, **SMALL, "rope_scaling": yarn}

    def folders(seed):
        tensors = scaled_tensors(config, "groups of 128", seed=seed)
        folder = write_checkpoint(tmp_path / str(seed), config, tensors)
        return folder, folder

    def model_of(folder, precision):
        return bitlinear_oracle(folder, precision, levels=16383, masters=False)

    assert_like_the_oracle(folders, model_of, range(2), length=200)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("config", [TRILM, BONSAI], ids=["TriLM", "Bonsai"])
def test_ternary_floats_are_transformers_model_with_15_bit_activations(config, layout, tmp_path):
    def folders(seed):
        tensors = scaled_tensors({**config, **SMALL}, layout, seed=seed)
        folder = write_checkpoint(tmp_path / str(seed), {**config, **SMALL}, tensors)
        return folder, folder

    def model_of(folder, precision):
        return bitlinear_oracle(folder, precision, levels=16383, masters=False)

    assert_like_the_oracle(folders, model_of, range(2))

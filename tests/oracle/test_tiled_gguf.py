"""TL1 and TL2 in the tiles that bitnet.cpp publishes: too large a model for `make test`."""

from pathlib import Path

import pytest
from checkpoints import TINY, make_tensors, write_checkpoint
from gguf_files import gguf_bytes
from gguf_models import config_keys, model_tensors, same_tensors

from bitinfer.convert import convert

# A layer of 1bitLLM's bitnet_b1_58-large, the smallest model whose tiles are published.
LARGE = {
    **TINY,
    "hidden_act": "silu",
    "hidden_size": 1536,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 96,
    "num_hidden_layers": 1,
    "bos_token_id": None,
    "eos_token_id": None,
}


@pytest.mark.parametrize("kind", ["TL1", "TL2"])
def test_a_model_in_tiles_is_that_of_the_checkpoint(tmp_path: Path, kind: str) -> None:
    stored, trits = make_tensors(LARGE)
    path = tmp_path / "model.gguf"
    tensors = model_tensors(stored, trits, kind)
    path.write_bytes(gguf_bytes(tensors, config_keys("bitnet", LARGE)))
    folder = write_checkpoint(tmp_path / "hf", LARGE, stored)
    packed = convert(path, tmp_path / "a", packing="i2")
    same_tensors(packed, convert(folder, tmp_path / "b", packing="i2"))

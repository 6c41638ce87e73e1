import numpy as np
import pytest
from checkpoints import TINY

from bitinfer.config import ModelConfig
from bitinfer.families.gguf_names import hugging_face_name, unpermuted
from bitinfer.families.spec import float_shapes, make_spec, ternary_shapes


def test_every_tensor_of_a_model_has_its_name():
    config = ModelConfig.from_dict(TINY)
    spec = make_spec(config, attn_sub_norm=True, ffn_sub_norm=True)
    expected = {*ternary_shapes(spec), *float_shapes(spec)}
    parts = "attn_norm attn_q attn_k attn_v attn_output attn_sub_norm"
    parts = (parts + " ffn_norm ffn_gate ffn_up ffn_down ffn_sub_norm").split()
    layers = range(config.num_hidden_layers)
    names = [f"blk.{i}.{part}.weight" for i in layers for part in parts]
    names += ["token_embd.weight", "output_norm.weight"]
    assert {hugging_face_name(name) for name in names} == expected
    assert hugging_face_name("output.weight") == "lm_head.weight"
    assert hugging_face_name("blk.1.attn_q.bias") == "model.layers.1.self_attn.q_proj.bias"


@pytest.mark.parametrize(
    "name", ["rope_freqs.weight", "blk.01.attn_q.weight", "blk.1.x.weight", ""]
)
def test_other_names_have_none(name):
    assert hugging_face_name(name) is None


def test_rows_go_back_to_their_places():
    heads, d = 3, 8
    rows = np.arange(heads * d * 2).reshape(heads * d, 2)  # as Hugging Face has them
    stored = np.empty_like(rows)
    for head in range(heads):
        for i in range(d // 2):
            for j in range(2):
                stored[head * d + 2 * i + j] = rows[head * d + j * d // 2 + i]
    assert (unpermuted(stored, heads) == rows).all()
    assert (unpermuted(stored[:, 0], heads) == rows[:, 0]).all()

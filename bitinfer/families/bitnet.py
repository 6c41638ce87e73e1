"""BitNet b1.58 as microsoft/bitnet-b1.58-2B-4T has it: sub-norms before o_proj and down_proj.

Source: transformers, src/transformers/models/bitnet/modeling_bitnet.py.
"""

from bitinfer.families.plan import Family

FAMILY = Family(
    architectures=("BitNetForCausalLM",),
    model_types=("bitnet",),
    traits={"attn_sub_norm": True, "ffn_sub_norm": True},
)

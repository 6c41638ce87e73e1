"""Qwen3 with BitLinear projections: BitDistill students and BitNet-Embedding's 0.6b.

A norm on each head of q and k; students have sub-norms before ``o_proj`` and ``down_proj``,
embedding models a norm inside each projection. Source: transformers,
src/transformers/models/qwen3/modeling_qwen3.py; arXiv 2510.13998.
"""

from bitinfer.families.plan import Family

FAMILY = Family(
    architectures=("Qwen3ForCausalLM", "Qwen3Model"),
    model_types=("qwen3",),
    traits={"qk_norm": True},
    optional={
        "attn_sub_norm": "self_attn.attn_sub_norm.weight",
        "ffn_sub_norm": "mlp.ffn_sub_norm.weight",
    },
)

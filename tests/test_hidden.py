"""Final hidden states: what the head multiplies, as the reference has it, alone or in a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import GEMMA3, QWEN3, tiny_checkpoint
from test_exactness import same_bits, tokens
from tiny_models import BITNET, LLAMA, Spec, make_tiny_model

from bitinfer import _core
from bitinfer.convert import convert
from bitinfer.engine import Engine
from bitinfer.errors import ContextLengthError, PromptError
from bitinfer.loading import load_folder
from bitinfer.reference import ReferenceDecoder

TEXTS = [[1, 7, 30, 2, 49, 0], [5], list(range(40))]
ENCODERS = {
    "gemma3": GEMMA3,
    "qwen3": {**GEMMA3, **QWEN3, "architectures": ["Qwen3Model"], "quantization_config": None},
}


@pytest.mark.parametrize("base", [BITNET, LLAMA])
@pytest.mark.parametrize("head", ["int8", "source"])
def test_hidden_states_are_the_references_and_the_head_makes_logits_of_them(
    base: Spec, head: str
) -> None:
    model = make_tiny_model(base=base, head=head)
    ids = tokens(70, model[0])
    decoder, reference = _core.Decoder(*model, 2), ReferenceDecoder(*model)
    decoder.prefill_chunk = 16
    hidden = decoder.hidden([ids], [decoder.new_cache(70)])
    assert same_bits(hidden, reference.hidden(ids))
    logits = decoder.forward([ids], [decoder.new_cache(70)], "all")
    assert same_bits(reference.head(hidden), logits)


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return tiny_checkpoint(folder, ENCODERS[request.param], form="master", dtype=np.float16)


@pytest.fixture(scope="module")
def engine(encoder: Path) -> Engine:
    return Engine.load(encoder, num_threads=2)


def test_an_encoder_gives_the_bits_of_the_reference(encoder: Path, engine: Engine) -> None:
    options: dict[str, Any] = {"packing": "i2", "head": "source", "weights": "auto"}
    model = load_folder(encoder, **options, progress=None)
    reference = ReferenceDecoder({**model.spec, "head": "source"}, model.weights)
    for ids in TEXTS:
        assert same_bits(engine.hidden([ids]), reference.hidden(np.array(ids)))


def test_an_encoder_survives_conversion(encoder: Path, engine: Engine, tmp_path: Path) -> None:
    packed = Engine.load(convert(encoder, tmp_path / "packed"), num_threads=1)
    assert same_bits(packed.hidden(TEXTS), engine.hidden(TEXTS))


def test_a_text_has_the_same_states_alone_and_beside_others(engine: Engine) -> None:
    alone = [engine.hidden([ids]) for ids in TEXTS]
    assert same_bits(engine.hidden(TEXTS), np.concatenate(alone))
    last = engine.hidden(TEXTS, rows="last")
    assert same_bits(last, np.stack([states[-1] for states in alone]))


def test_what_cannot_be_run_is_refused(encoder: Path, engine: Engine) -> None:
    with pytest.raises(PromptError, match="expected at least one token id"):
        engine.hidden([[1], []])
    with pytest.raises(ContextLengthError, match="expected at most 30 tokens"):
        Engine.load(encoder, context_length=30).hidden(TEXTS)

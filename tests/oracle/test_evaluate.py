"""Perplexity by torch's cross entropy over transformers' logits of the same windows.

Rounding flips activation codes now and then, and flips cascade (test_logits.py). So each loss is as
near to that of fp64 as those of fp32 are, and the mean, which flips move either way, within chance.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from comparisons import assert_like_fp32
from conftest import comparable_engine
from transformers_oracle import Oracle

from bitinfer import default_model
from bitinfer.evaluate import document_perplexity, perplexity, scoring
from bitinfer.model import Model

WINDOW, STRIDE = 128, 64


@pytest.fixture(scope="module")
def model():
    """Ours without the roundings that transformers does not make."""
    with Model(comparable_engine(default_model()), default_model()) as model:
        yield model


@pytest.fixture(scope="module")
def texts(model, stories):
    return [model.tokenizer.decode(ids) for ids in stories[:5]]


@pytest.fixture
def losses(monkeypatch):
    """The losses of single tokens, which a perplexity is the mean of."""
    found: list[np.ndarray] = []
    inner: Callable = scoring.token_losses

    def keep(*arguments):
        found.append(inner(*arguments))
        return found[-1]

    monkeypatch.setattr(scoring, "token_losses", keep)
    return found


def oracle_losses(oracle: Oracle, ids: list[int]) -> np.ndarray:
    """Loss of each token but the first, by a window that is moved by hand."""
    found, end = [], 1
    while end < len(ids):
        before, end = end, min(len(ids), WINDOW + 1 if end == 1 else end + STRIDE)
        window = ids[max(0, end - WINDOW - 1) : end]
        rows = torch.from_numpy(oracle.logits(window))[before - end - 1 : -1]
        targets = torch.tensor(window[before - end :])
        found.append(torch.nn.functional.cross_entropy(rows, targets, reduction="none").numpy())
    return np.concatenate(found)


def assert_same(ours: np.ndarray, theirs: np.ndarray, exact: np.ndarray) -> None:
    difference = ours - exact
    ours, theirs = np.abs(difference), np.abs(theirs - exact)
    assert ours[:8].max() <= 1e-5  # no code has flipped yet in the first tokens of a text
    assert np.quantile(ours, 0.1) <= np.quantile(theirs, 0.1)  # nor in many of the later ones
    assert_like_fp32([ours], [theirs])
    assert abs(difference.mean()) <= 4 * difference.std() / np.sqrt(len(difference))


def test_perplexity_is_that_of_transformers(model, tales32, tales64, texts, losses):
    text = " ".join(texts)
    ids = model.tokenizer.encode(text, add_special_tokens=True)
    assert len(ids) >= 4 * WINDOW
    found = perplexity(model, text, window=WINDOW, stride=STRIDE)
    theirs, exact = (oracle_losses(oracle, ids) for oracle in (tales32, tales64))
    assert_same(np.concatenate(losses), theirs, exact)
    assert found.tokens == len(exact) == len(ids) - 1
    assert found.nats_per_token == pytest.approx(exact.mean(), abs=5e-3)


def test_documents_are_those_of_transformers(model, tales32, tales64, texts, losses):
    documents = [f"{text}</s>" for text in texts[:3]]
    found = document_perplexity(model, documents, window=WINDOW, stride=STRIDE)
    parts = [[1, *model.tokenizer.encode(text), 2] for text in texts[:3]]
    theirs, exact = (
        np.concatenate([oracle_losses(oracle, ids) for ids in parts])
        for oracle in (tales32, tales64)
    )
    assert_same(np.concatenate(losses), theirs, exact)
    assert found.nats_per_token == pytest.approx(exact.mean(), abs=5e-3)

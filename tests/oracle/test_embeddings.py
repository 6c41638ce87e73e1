"""Hidden states and vectors of encoders, over texts longer than their windows."""

import numpy as np
import pytest
import torch
from comparisons import assert_like_fp32, distances
from conftest import comparable_engine
from encoders import FAMILIES, SHAPE, encoder_oracle, write_encoder
from random_models import random_text

from bitinfer.pooling import Pooling


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_and_vectors_are_as_near_to_fp64_as_those_of_fp32(family, tmp_path):
    ours, theirs, our_vectors, their_vectors = [], [], [], []
    pool = Pooling("last", normalize=True).pool
    for seed in range(8):
        folder = write_encoder(tmp_path / str(seed), family, seed)
        ids = random_text(SHAPE["vocab_size"], 100, seed)
        exact = encoder_oracle(folder, family, seed, torch.float64).hidden(ids)
        got = comparable_engine(folder).hidden([ids])
        torchs = encoder_oracle(folder, family, seed, torch.float32).hidden(ids)
        ours.append(distances(got, exact))
        theirs.append(distances(torchs, exact))
        direction = exact[-1] / np.linalg.norm(exact[-1])
        our_vectors.append(np.abs(pool(got) - direction).max())
        their_vectors.append(np.abs(pool(torchs) - direction).max())
    assert_like_fp32(ours, theirs)
    assert np.median(np.concatenate(ours)) < 0.1 * np.abs(exact).max()
    assert np.median(our_vectors) <= 3 * np.median(their_vectors)


@pytest.mark.parametrize("mode", ["last", "mean", "cls"])
def test_pooling_is_what_torch_makes_of_the_same_states(mode):
    states = torch.randn(30, 64, generator=torch.Generator().manual_seed(0))
    pooled = {"last": states[-1], "mean": states.mean(dim=0), "cls": states[0]}[mode]
    expected = torch.nn.functional.normalize(pooled, dim=0).numpy()
    got = Pooling(mode, normalize=True).pool(states.numpy())
    assert np.abs(got - expected).max() < 1e-6  # of a unit vector, a dozen roundings of 2^-24

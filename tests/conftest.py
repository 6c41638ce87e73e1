"""Fixtures of several test files; tiny models are built in tiny_models.py and checkpoints.py."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from bitinfer import _core


@pytest.fixture(params=_core.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each row of kernels that this machine can run, made active for the test."""
    before = _core.active_isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(20240229)

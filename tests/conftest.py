"""Fixtures of several test files; tiny models are built in tiny_models.py and checkpoints.py."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest

from bitinfer import _core

# A shell starts background jobs with SIGINT ignored, nohup with SIGHUP; the programs under test
# would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# No test reads the settings or what was tuned, or writes into the history, of whoever runs it.
os.environ["BITINFER_CONFIG"] = os.devnull
os.environ["BITINFER_TUNING"] = os.devnull
os.environ["BITINFER_HISTORY"] = "false"


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

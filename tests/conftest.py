"""Fixtures of several test files; tiny models are built in tiny_models.py and checkpoints.py."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from bitinfer import _core

if TYPE_CHECKING:
    from fake_hub import FakeHub

# A shell starts background jobs with SIGINT ignored, nohup with SIGHUP; the programs under test
# would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# No test reads the settings or what was tuned, or writes into the history, of whoever runs it.
os.environ["BITINFER_CONFIG"] = os.devnull
os.environ["BITINFER_TUNING"] = os.devnull
os.environ["BITINFER_HISTORY"] = "false"

# No test asks the real hub or touches what was pulled; the fixture `hub` is one of their own.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["BITINFER_HUB"] = os.devnull


@pytest.fixture(params=_core.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each row of kernels that this machine can run, made active for the test."""
    before = _core.active_isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)


@pytest.fixture(scope="session")
def hub_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """Folder and files of the model that the `hub` has."""
    from fake_hub import model_files

    folder = tmp_path_factory.mktemp("hub-files") / "tiny"
    return folder, model_files(folder)


@pytest.fixture
def hub(
    hub_files: tuple[Path, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeHub]:
    """A hub on this machine, and a disk on which nothing of it is yet."""
    from fake_hub import FakeHub, serve
    from huggingface_hub import constants, file_download

    fake = FakeHub(dict(hub_files[1]))
    with serve(fake):
        template = fake.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", fake.endpoint)
        for module in (constants, file_download):  # old versions have copies of these
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
            monkeypatch.setattr(module, "DOWNLOAD_CHUNK_SIZE", 10_000, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("BITINFER_HUB", str(tmp_path / "bitinfer"))
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the hub's retries
        yield fake


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(20240229)

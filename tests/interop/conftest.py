"""Fixtures of the tests with other programs (`make interop`). No test here may be skipped."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
from served import Running, model_with_template, running

from bitinfer import default_model
from bitinfer.model import Model

# No figures are sent from here.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", r"ignore:::ray(\..*)?")  # not ours to mend


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Iterator[None]:
    report: Any = yield
    if "cluster" in item.fixturenames:
        report.sections.clear()  # Ray logs more than anybody reads
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, which no test of interop may be: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def model() -> Iterator[Model]:
    """The embedded model in this process: what others must say too."""
    with Model.load(default_model(), num_threads=1) as model:
        yield model


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A Ray cluster on this machine, which says nothing but errors."""
    import ray

    ray.init(
        num_cpus=4,  # logical ones: how many tasks and actors of one CPU may be there at once
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """The embedded model with a template that knows tools and thinking."""
    folder = tmp_path_factory.mktemp("talker") / "model"
    with Model.load(model_with_template(folder), num_threads=1) as model:
        yield model


@pytest.fixture(scope="session")
def server(talker: Model) -> Iterator[Running]:
    """A server of `talker` that anybody may ask."""
    with running(talker) as server:
        yield server

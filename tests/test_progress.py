"""Progress bars: silent in scripts, shown in notebooks and when asked for, gone at the end."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from bitinfer import progress
from bitinfer.progress import in_notebook, progress_bar


@pytest.fixture
def shell(monkeypatch):
    """Whatever IPython says that runs this; a notebook's kernel has IPKernelApp in its config."""

    def pretend(config: dict | None) -> None:
        shell = None if config is None else SimpleNamespace(config=config)
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))

    return pretend


@pytest.mark.parametrize(
    ("config", "notebook"),
    [(None, False), ({"TerminalIPythonApp": {}}, False), ({"IPKernelApp": {}}, True)],
)
def test_only_a_kernel_is_a_notebook(shell, config, notebook) -> None:
    shell(config)
    assert in_notebook() is notebook


def test_a_script_is_no_notebook() -> None:
    assert "IPython" not in sys.modules
    assert not in_notebook()


@pytest.mark.parametrize("show", [None, False])
def test_nothing_is_shown_in_a_script(capfd, show) -> None:
    with progress_bar("load", "B", show) as told:
        told(1, 2)
    assert capfd.readouterr() == ("", "")


def test_a_bar_tells_title_and_share_on_stderr_and_vanishes(capfd, monkeypatch) -> None:
    monkeypatch.setattr(progress, "_SHOWN_AFTER_S", 0)
    monkeypatch.setattr(progress, "_REDRAWN_AFTER_S", 0)
    with progress_bar("load", "B", True) as told:
        told(1_000_000, 4_000_000)
        told(3_000_000, 4_000_000)
    out, err = capfd.readouterr()
    assert out == ""
    frames = err.split("\r")
    assert any("load" in f and "75%" in f and "3.00M/4.00M" in f for f in frames)
    assert frames[-2].strip() == ""  # overwritten by blanks


def test_what_is_done_at_once_shows_nothing(capfd) -> None:
    with progress_bar("generate", " tokens", True) as told:
        told(1, 1)
    assert capfd.readouterr().err.strip() == ""

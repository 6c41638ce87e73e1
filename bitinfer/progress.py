"""Progress bars for work that takes seconds: in notebooks by themselves, elsewhere if asked for.

A script that uses the library prints nothing that it did not ask for; in a notebook a cell that is
silent for half a minute looks dead, and other libraries of the field show a bar there too.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SHOWN_AFTER_S = 0.5  # what is done by then needs no bar
_REDRAWN_AFTER_S = 0.1


def in_notebook() -> bool:
    """Whether this runs in a kernel of Jupyter (or Colab, or an editor's notebook)."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


@contextmanager
def progress_bar(title: str, unit: str, show: bool | None) -> Iterator[Callable[[int, int], None]]:
    """A bar that vanishes at the end.

    Args:
        title: What is done.
        unit: What is counted; "B" is shown as kB, MB, ...
        show: None: in notebooks.

    Yields:
        A function that takes how much is done and how much there is.
    """
    if not (in_notebook() if show is None else show):
        yield lambda done, total: None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no widgets installed: it draws with characters
        from tqdm.auto import tqdm
    bar = tqdm(
        desc=title,
        unit=unit,
        unit_scale=unit == "B",
        leave=False,
        delay=_SHOWN_AFTER_S,
        mininterval=_REDRAWN_AFTER_S,
        dynamic_ncols=True,
    )

    def show_progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    with bar:
        yield show_progress

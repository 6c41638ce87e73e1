"""How pictures look: light or dark, with colours that colour-blind people can tell apart.

The colours are those of Okabe and Ito.
"""

from __future__ import annotations

from typing import Any

SUFFIXES = (".png", ".svg")  # of pictures
COLOURS = {  # without those that are faint on the paper
    "light": ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"),
    "dark": ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00"),
}
INK = {"light": ("#ffffff", "#1a1a1a", "#d8d8d8"), "dark": ("#161b22", "#e6e6e6", "#363d47")}


def rc_params(theme: str) -> Any:
    """Settings of matplotlib for ``light`` or ``dark``."""
    paper, ink, grid = INK[theme]
    inked = ("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "text.color")
    return {
        **dict.fromkeys(inked, ink),
        "figure.facecolor": paper,
        "axes.facecolor": paper,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": "medium",
        "grid.color": grid,
        "grid.linewidth": 0.6,
        "font.size": 9,
        "legend.frameon": False,
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "bitinfer",  # the same records, the same file
    }

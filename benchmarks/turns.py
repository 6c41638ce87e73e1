"""Runs that take turns, so that what else the machine does meets all of them.

A run during which other programs had more than 3 % of the machine is repeated: llama.cpp's threads
wait spinning, and a thread that has to wait for its turn stops all others.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

QUIET_SHARE = 0.03  # of the machine's CPU time, for other programs, in a run that counts at once
MOST_TRIES = 5

Key = TypeVar("Key", bound=Hashable)
Run = Callable[[], float]  # does it once; how fast that was


@dataclass(frozen=True)
class Turns(Generic[Key]):
    """What runs that took turns have shown.

    Attributes:
        rates: Of each run, round by round.
        others_cpu_share: The most of the machine that other programs had during one of them.
    """

    rates: dict[Key, list[float]]
    others_cpu_share: float


@dataclass(frozen=True)
class Ratio:
    """How much faster one run is than another, round by round."""

    median: float
    least: float
    largest: float


def take_turns(runs: Mapping[Key, Run], rounds: int) -> Turns[Key]:
    """Do every run once a round; before the rounds that count there is one that does not."""
    rates: dict[Key, list[float]] = {key: [] for key in runs}
    others = 0.0
    for number in range(rounds + 1):
        for key, run in runs.items():
            if not number:
                run()
            else:
                rate, share = undisturbed(run)
                rates[key].append(rate)
                others = max(others, share)
    return Turns(rates, others)


def ratio(over: list[float], under: list[float]) -> Ratio:
    """By how much ``over`` is the faster; rates of the same round belong together."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def undisturbed(run: Run) -> tuple[float, float]:
    """Do a run again while other programs use the machine.

    Returns:
        The rate of the least disturbed one, and the share of the machine's time that others had.
    """
    tries = []
    for _ in range(MOST_TRIES):
        began, others = time.perf_counter(), other_cpu_s()
        rate = run()
        elapsed = (time.perf_counter() - began) * (os.cpu_count() or 1)
        tries.append((max(0.0, other_cpu_s() - others) / elapsed, rate))
        if tries[-1][0] <= QUIET_SHARE:
            break
    share, rate = min(tries)
    return rate, share


def other_cpu_s() -> float:
    """CPU seconds that all programs but this one have used; 0 where the system does not tell."""
    try:
        line = Path("/proc/stat").read_text().splitlines()[0]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, softirq, steal = map(int, line.split()[1:9])
    own = os.times()
    ticks = user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK") - own.user - own.system

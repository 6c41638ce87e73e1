"""Sampling as docs/sampling.md writes it down: one token at a time, plain Python, no speed.

It shares only exp with the package; sums run over ascending ids. Used by the tests of sampling.
"""

from __future__ import annotations

import math

import numpy as np

from bitinfer.runtime import exp
from bitinfer.sampling import SamplingParams

F32 = np.float32


def changed(
    logits: np.ndarray, params: SamplingParams, text: list[int], num_prompt: int, breakers: set[int]
) -> np.ndarray:
    """Logits after the bias and the penalties, for ``text`` = prompt + reply."""
    z = [F32(x) for x in logits]
    for i, bias in params.logit_bias.items():
        z[i] = z[i] + F32(bias)
    window = params.repetition_window or len(text)
    start = max(0, len(text) - window)
    for i in set(text[start:]):
        p = F32(params.repetition_penalty)
        z[i] = z[i] * p if z[i] < 0 else z[i] / p
    reply = text[max(start, num_prompt) :]
    for i in set(reply):
        frequency = F32(reply.count(i)) * F32(params.frequency_penalty)
        z[i] = z[i] - (frequency + F32(params.presence_penalty))
    if params.dry_multiplier > 0:
        for i, n in longest_repeats(text, params.dry_window, breakers).items():
            if n >= params.dry_allowed_length and i not in breakers:
                growth = params.dry_base ** (n - params.dry_allowed_length)
                z[i] = z[i] - F32(params.dry_multiplier * growth)
    return np.array(z, F32)


def longest_repeats(text: list[int], window: int, breakers: set[int]) -> dict[int, int]:
    """For each token that would repeat a sequence of the text: the longest such sequence."""
    text = text[-window:] if window else text
    found: dict[int, int] = {}
    for i in range(len(text) - 1):
        n = 0
        while n <= i and text[i - n] == text[-1 - n] and text[i - n] not in breakers:
            n += 1
        if n:
            found[text[i + 1]] = max(found.get(text[i + 1], 0), n)
    return found


def kept(logits: np.ndarray, params: SamplingParams, xtc: bool = False) -> dict[int, float]:
    """Token id -> weight of what temperature to XTC leave."""
    z_max = max(logits)
    s = {i: (z - z_max) / F32(params.temperature) for i, z in enumerate(logits)}
    w = {i: float(exp(np.array([s[i]]))[0]) for i in s}

    def total(values) -> float:
        running = 0.0
        for value in values:
            running += value
        return running

    def shortest_run(order: list[int], share: float) -> list[int]:
        bound, running, run = share * total(w[i] for i in sorted(order)), 0.0, []
        for i in order:
            run.append(i)
            running += w[i]
            if running >= bound:
                break
        return run

    ids = sorted(s, key=lambda i: (-s[i], i))
    if params.top_k:
        ids = ids[: params.top_k]
    if params.typical_p < 1:
        likely = sorted(i for i in ids if w[i] > 0)
        mean = total(w[i] * float(s[i]) for i in likely) / total(w[i] for i in likely)
        surprise = {i: abs(mean - float(s[i])) if w[i] > 0 else math.inf for i in ids}
        ids = shortest_run(sorted(ids, key=lambda i: (surprise[i], i)), params.typical_p)
    ids = sorted(ids, key=lambda i: (-s[i], i))
    if params.top_p < 1:
        ids = shortest_run(ids, params.top_p)
    if params.min_p > 0:
        ids = [i for i in ids if w[i] >= F32(params.min_p * max(w[j] for j in ids))]
    if xtc:
        least = F32(params.xtc_threshold * total(w[i] for i in sorted(ids)))
        top = [i for i in ids if w[i] >= least]
        ids = [i for i in ids if i not in top[:-1]]
    return {i: w[i] for i in sorted(ids)}


def chi_square_bound(degrees: int) -> float:
    """99.99 % point of chi-square by Wilson and Hilferty: a correct sampler fails one seed in 10^4.

    The cube root of chi-square / n is nearly normal with mean 1 - 2/(9n) and variance 2/(9n), and
    a normal variable exceeds 3.719 of its deviations with probability 10^-4. Seeds are fixed.
    """
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + 3.719 * math.sqrt(spread)) ** 3

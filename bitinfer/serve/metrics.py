"""Figures of the server for Prometheus: requests, queue, tokens, times, caches, memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from bitinfer.generate import Completion
from bitinfer.serve.backend import Backend

_FIRST_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BETWEEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)


_COUNTS = (  # of the backend
    ("waiting", "Jobs in the queue", GaugeMetricFamily),
    ("running", "Jobs in prefill or decode", GaugeMetricFamily),
    ("slots", "Most jobs that run at once", GaugeMetricFamily),
    ("cache_tokens", "Positions that the KV caches can hold", GaugeMetricFamily),
    ("cache_tokens_used", "Positions that are held", GaugeMetricFamily),
    ("cache_tokens_kept", "Held positions that only may serve a later prompt", GaugeMetricFamily),
    ("cache_bytes", "Memory of the KV caches", GaugeMetricFamily),
    ("run_tokens", "Tokens that went through the model", CounterMetricFamily),
    ("cached_tokens", "Tokens of prompts that were in memory already", CounterMetricFamily),
    ("preempted", "Jobs that had to wait again for memory", CounterMetricFamily),
)


class Metrics:
    """What is counted.

    Attributes:
        requests: Requests by path and status.
        refused: Generations that were not queued.
    """

    def __init__(self, backend: Backend, model: str) -> None:
        self.registry = registry = CollectorRegistry()
        self._model = model
        names = ["model"]
        self.requests = Counter(
            "bitinfer_requests", "HTTP requests", ["path", "status"], registry=registry
        )
        self.refused = Counter(
            "bitinfer_refused", "Generations that were not queued", names, registry=registry
        )
        self._prompt = Counter(
            "bitinfer_prompt_tokens", "Tokens of prompts", names, registry=registry
        )
        self._completion = Counter(
            "bitinfer_completion_tokens", "Tokens generated", names, registry=registry
        )
        self._ended = Counter(
            "bitinfer_replies", "Replies that ended", ["model", "reason"], registry=registry
        )
        self._first = Histogram(
            "bitinfer_time_to_first_token_seconds",
            "From the request to its first token",
            names,
            buckets=_FIRST_S,
            registry=registry,
        )
        self._between = Histogram(
            "bitinfer_inter_token_seconds",
            "From a token to the next",
            names,
            buckets=_BETWEEN_S,
            registry=registry,
        )
        registry.register(_Busy(backend, model))
        if Path("/proc/self/stat").exists():
            ProcessCollector(registry=registry)

    def watch(self) -> Watch:
        """Times of a generation that begins now."""
        return Watch(self._first.labels(self._model), self._between.labels(self._model))

    def ended(self, completion: Completion) -> None:
        """A reply is whole."""
        usage = completion.usage
        self._prompt.labels(self._model).inc(usage.prompt_tokens)
        self._completion.labels(self._model).inc(usage.completion_tokens)
        self._ended.labels(self._model, completion.finish_reason).inc()

    def text(self) -> bytes:
        """The page."""
        return generate_latest(self.registry)


class Watch:
    """Measures the time to the first token and between tokens, of each reply of a request."""

    def __init__(self, first: Histogram, between: Histogram) -> None:
        self._first, self._between = first, between
        self._started_s = time.perf_counter()
        self._last_s: dict[int, float] = {}

    def token(self, number: int) -> None:
        """Reply ``number`` has grown."""
        now_s = time.perf_counter()
        last_s = self._last_s.get(number)
        if last_s is None:
            self._first.observe(now_s - self._started_s)
        else:
            self._between.observe(now_s - last_s)
        self._last_s[number] = now_s


class _Busy(Collector):
    """What the backend says when it is asked."""

    def __init__(self, backend: Backend, model: str) -> None:
        self._backend, self._model = backend, model

    def collect(self) -> Iterator[Metric]:
        """Each count."""
        counts = self._backend.counts()
        for name, text, kind in _COUNTS:
            family = kind(f"bitinfer_{name}", text, labels=["model"])
            family.add_metric([self._model], getattr(counts, name))
            yield family

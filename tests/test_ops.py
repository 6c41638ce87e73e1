"""Deterministic maths against the reference; the roofline's reader; threads and forks."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
from tiny_models import make_tiny_model

from bitinfer import _core, reference

SIZES = (0, 1, 7, 15, 16, 17, 31, 32, 33, 1000)


@pytest.mark.parametrize("n", SIZES)
def test_exp_equals_reference(n: int, isa: str, rng: np.random.Generator) -> None:
    x = rng.uniform(-95, 95, n).astype(np.float32)
    assert _core.exp_f32(x).tobytes() == reference.exp_f32(x).tobytes(), isa


def test_exp_of_special_values_equals_reference(isa: str) -> None:
    edges = np.array(
        [-87.3125, 88.375, 0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 3e38], np.float32
    )
    near = np.concatenate(
        [edges, np.nextafter(edges, np.float32(0)), np.nextafter(edges, np.float32(99))]
    )
    with np.errstate(all="ignore"):
        expected = reference.exp_f32(near)
    assert _core.exp_f32(near).tobytes() == expected.tobytes(), isa
    assert np.isnan(_core.exp_f32(np.array([np.nan], np.float32)))


def test_sin_cos_equal_reference(rng: np.random.Generator) -> None:
    angles = np.concatenate([rng.uniform(-(2.0**24), 2.0**24, 3000), rng.uniform(-10, 10, 3000)])
    angles = angles.astype(np.float32).reshape(2, -1)
    for got, expected in zip(_core.sin_cos_f32(angles), reference.sin_cos_f32(angles), strict=True):
        assert got.shape == angles.shape
        assert got.tobytes() == expected.tobytes()


def test_sin_cos_beyond_their_range_are_nan() -> None:
    sin, cos = _core.sin_cos_f32(np.array([2.0**25, np.inf, np.nan], np.float32))
    assert np.isnan(sin).all()
    assert np.isnan(cos).all()


@pytest.mark.parametrize("base", [10_000.0, 500_000.0, 0.3, 2.0])
def test_pow_equals_reference(base: float) -> None:
    exponents = np.linspace(-3, 3, 301)
    assert _core.pow_f64(base, exponents).tobytes() == reference.pow_f64(base, exponents).tobytes()


def test_pow_of_what_has_no_power_is_nan() -> None:
    assert np.isnan(_core.pow_f64(-1.0, np.array([0.5]))).all()
    assert np.isnan(_core.pow_f64(2.0, np.array([np.nan, np.inf]))).all()


@pytest.mark.parametrize("streams", [1, 3, 8])
@pytest.mark.parametrize("num_bytes", [0, 1, 4095, 1 << 20])
def test_read_bandwidth_times_each_repeat(num_bytes: int, streams: int, isa: str) -> None:
    seconds = _core.read_bandwidth(
        np.ones(num_bytes, np.uint8), threads=2, streams=streams, repeats=3
    )
    assert len(seconds) == 3, isa
    assert all(0 <= s < 10 for s in seconds)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threads": 0}, "threads: expected 1 to 256, got 0"),
        ({"streams": 9}, "streams: expected 1 to 8, got 9"),
        ({"repeats": 0}, "repeats: expected at least 1, got 0"),
    ],
)
def test_read_bandwidth_rejects(arguments: dict, message: str) -> None:
    good = {"threads": 1, "streams": 4, "repeats": 1}
    with pytest.raises(ValueError, match=message):
        _core.read_bandwidth(np.zeros(64, np.uint8), **{**good, **arguments})


def forward_once(decoder: _core.Decoder, ids: np.ndarray) -> bytes:
    return decoder.forward([ids], [decoder.new_cache(64)], "all").tobytes()


def test_many_python_threads_share_one_decoder() -> None:
    decoder = _core.Decoder(*make_tiny_model({"hidden_size": 320, "intermediate_size": 640}), 3)
    ids = np.arange(40, dtype=np.int32)
    expected = forward_once(decoder, ids)
    wrong = []

    def work() -> None:
        for _ in range(5):
            if forward_once(decoder, ids) != expected:
                wrong.append(threading.get_ident())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is a POSIX call")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_computes_on() -> None:
    decoder = _core.Decoder(*make_tiny_model({"hidden_size": 320, "intermediate_size": 640}), 3)
    ids = np.arange(40, dtype=np.int32)
    expected = forward_once(decoder, ids)  # workers exist now, in the parent only
    child = os.fork()
    if child == 0:
        try:
            ok = forward_once(decoder, ids) == expected and forward_once(decoder, ids) == expected
        except BaseException:
            ok = False
        os._exit(0 if ok else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert forward_once(decoder, ids) == expected

"""benchmarks/ffn_sparsity.py: the page says what the record holds, densities are the model's."""

from bench_records import MACHINE
from ffn_sparsity import densities, parts

from bitinfer.runtime import default_model


def test_page_tells_median_speeds_and_their_ratio():
    facts = {"isa": "amx", **MACHINE}
    real = {"kind": "densities", "model": "tales-14m", "tokens": 9, "gate": [0.3], "down": [0.2]}
    speed = {
        "kind": "speed",
        "gate": 0.5,
        "down": 1 / 3,
        "rounds": 3,
        "threads": 2,
        "ternary_bytes": {"dense": 417_000_000, "sparse": 314_000_000},
        "tokens_per_s": {"dense": [20, 22, 21], "sparse": [25, 23, 24]},
        "ratio": 1.14,
        "least": 1.05,
        "largest": 1.25,
    }
    page = parts([real | facts, speed | facts])
    assert "| 0.5 | 0.33 | 417 | 314 | 21.0 | 24.0 | 1.14 (1.05-1.25) |" in page["speed"]
    assert "| gate | 0.30 |" in page["densities"]


def test_embedded_model_has_idle_neurons():
    line = densities(default_model(), 50)
    assert line["tokens"] >= 50
    assert len(line["gate"]) == len(line["down"]) == 8
    assert all(0 < down < gate < 1 for gate, down in zip(line["gate"], line["down"], strict=True))

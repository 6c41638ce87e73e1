"""benchmarks/on_paper.py, arithmetic.py: computed bytes are the engine's, counts are by hand."""

from collections import Counter

import arithmetic
import on_paper
import pytest
from random_model import SHAPES, write_random_model
from test_random_model import small

from bitinfer.engine import Engine


@pytest.mark.parametrize("packing", ["i2", "t3", "t5"])
@pytest.mark.parametrize("name", SHAPES)
def test_computed_bytes_are_those_that_the_engine_counts(name, packing, tmp_path):
    shape = small(name)
    write_random_model(shape, tmp_path / "model", packing=packing)
    engine = Engine.load(tmp_path / "model", packing=packing, num_threads=1)
    assert on_paper.bytes_per_token(on_paper.spec_of(shape), packing) == engine.bytes_per_token()


def test_bytes_of_the_2b_shape_are_those_of_the_design():
    """417 MB at 1.6 bits, 328 MB of head, 77 KB a position; within the scales and padding."""
    read = on_paper.bytes_per_token(on_paper.spec_of(SHAPES["bitnet-2b-4t"]), "t5")
    assert read["ternary"] == pytest.approx(2_084_044_800 * 1.6 / 8, rel=0.003)
    assert read["head"] == 128256 * (2560 + 4)
    assert read["kv_per_position"] == 2 * 5 * 128 * 30 * 2
    assert sum(read.values()) == pytest.approx(750e6, rel=0.01)


def test_larger_shapes_have_as_many_weights_as_their_names_say():
    billions = {n: on_paper.weights(on_paper.spec_of(s)) for n, s in on_paper.PAPER_SHAPES.items()}
    assert 68e9 < billions["70B"] < 70e9
    assert 95e9 < billions["100B"] < 101e9


def test_memory_systems_have_the_bandwidth_of_their_data_sheets():
    found = {system.name: round(system.gb_per_s, 1) for system in on_paper.SYSTEMS}
    assert found["DDR4-3200, 2 channels"] == 51.2
    assert found["Apple M4 (LPDDR5X-7500, 128 bit)"] == 120
    assert found["DDR5-4800, 12 channels (EPYC 9004)"] == 460.8


def test_speed_is_bandwidth_by_bytes():
    system = on_paper.MemorySystem("one byte a transfer", 1000, 8)
    assert on_paper.tokens_per_s(10**6, system) == pytest.approx(1000 * on_paper.SHARE)


TINY = {  # and 2 heads of keys, an FFN of 200
    "hidden_size": 96,
    "num_attention_heads": 4,
    "head_dim": 24,
    "num_hidden_layers": 2,
    "vocab_size": 700,
}


def test_operations_are_those_counted_by_hand():
    spec = on_paper.spec_of(small("bitnet-2b-4t"))
    assert {name: spec[name] for name in TINY} == TINY
    count = 2 * (96 * 96 + 2 * 48 * 96 + 96 * 96 + 3 * 200 * 96)
    head, attention = 700 * 96, 2 * (9 + 1) * 96 * 2
    assert arithmetic.ternary_matrices(spec) == Counter({"int8 add": count})
    assert arithmetic.float_matrices(spec) == Counter({"fp16 mul": count, "fp16 add": count})
    assert arithmetic.float_token(spec, 9)["fp16 mul"] == count + head + attention
    assert arithmetic.ternary_token(spec, 9) == Counter(
        {
            "int32 add": count + 2 * head,
            "int8 mul": 2 * head,
            "fp32 mul": attention,
            "fp32 add": attention,
        }
    )


def test_matrices_alone_give_the_papers_ratio():
    """71.4 x at 7 nm (arXiv 2402.17764), whatever the shape."""
    for shape in on_paper.PAPER_SHAPES.values():
        spec = on_paper.spec_of(shape)
        energies = [
            arithmetic.millijoules(count(spec), "7 nm")
            for count in (arithmetic.float_matrices, arithmetic.ternary_matrices)
        ]
        assert energies[0] / energies[1] == pytest.approx(71.4, abs=0.1)

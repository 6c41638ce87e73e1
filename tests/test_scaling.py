"""benchmarks/scaling*.py: which cells there are, resuming, tables of what is there."""

import json
import xml.etree.ElementTree as ET

import pytest
import scaling
import scaling_page
import scaling_plot
from bench_records import MACHINE, make_prefill, make_record
from random_model import write_random_model
from scaling_cells import BATCHES, CONTEXTS, MOST_CACHE_BYTES, Cell, cells, study_shape
from tables_md import table
from test_random_model import small

from bitinfer import runtime

ISAS = ["amx", "avx2"]


def test_cells_vary_one_thing_at_a_time_and_two_for_the_2b_shape():
    found = cells(ISAS, 2)
    assert len(set(found)) == len(found)
    of_3b = [cell for cell in found if cell.shape == "3B"]
    base = Cell("3B", "amx", 2, CONTEXTS[0], 1)
    assert base in of_3b
    assert {cell.context for cell in of_3b if cell.batch == 1 and cell.isa == "amx"} == set(
        CONTEXTS
    )
    assert {cell.batch for cell in of_3b if cell.context == CONTEXTS[0]} == set(BATCHES)
    assert {(cell.isa, cell.threads) for cell in of_3b if not cell.batch} == {
        (isa, threads) for isa in ISAS for threads in (1, 2)
    }
    of_2b = {(cell.context, cell.batch) for cell in found if cell.shape == "2B" and cell.batch}
    assert of_2b == {(c, b) for c in CONTEXTS for b in BATCHES}


def test_caches_of_all_cells_fit():
    for cell in cells(ISAS, 2):
        config = study_shape(cell.shape).config
        heads = config["num_key_value_heads"] * config["head_dim"] * config["num_hidden_layers"]
        assert cell.batch * cell.context * heads * 4 < MOST_CACHE_BYTES


@pytest.fixture
def tiny(monkeypatch):
    shape = small("bitnet-2b-4t", max_position_embeddings=300)
    monkeypatch.setattr(scaling, "study_shape", lambda name: shape)
    monkeypatch.setattr(scaling, "REPEATS", 1)


def test_a_study_resumes_where_it_was_left(tiny, tmp_path, capsys):
    isa = runtime.available_isas()[0]
    wanted = [Cell("2B", isa, 1, 0, 0), Cell("2B", isa, 1, 20, 1), Cell("2B", isa, 1, 20, 3)]
    path = tmp_path / "records" / "cpu.jsonl"
    left = scaling.run(wanted[:2], path, tmp_path, seconds=60, keep=False)
    assert (left, list(tmp_path.glob("scaling-*"))) == (0, [])
    assert scaling.run(wanted[2:], path, tmp_path, seconds=-1, keep=False) == 1
    scaling.run(wanted[2:], path, tmp_path, seconds=60, keep=True)
    assert (tmp_path / "scaling-2B").exists()
    found = scaling.read_cells(path)
    assert list(found) == [cell.name for cell in wanted]
    tests = [(r.phase, r.depth, r.batch, r.isa, r.weights) for r in found.values()]
    assert tests == [
        ("prefill", 0, 1, isa, "copy"),
        ("decode", 19, 1, isa, "copy"),
        ("decode", 19, 3, isa, "copy"),
    ]
    assert f"2B/{isa}/t1/c20/b3: " in capsys.readouterr().out


def study(tmp_path):
    """Some cells with made-up speeds."""
    speeds = {
        "2B/amx/t2/prompt": make_prefill(300),
        "2B/amx/t2/c128/b1": make_record(40),
        "2B/avx2/t2/c128/b1": make_record(30, isa="avx2"),
        "2B/amx/t1/c128/b1": make_record(21.5, threads=1),
        "2B/amx/t2/c4096/b1": make_record(28.25),
        "2B/amx/t2/c128/b8": make_record(160),
    }
    path = tmp_path / "cpu.jsonl"
    lines = [json.dumps({"cell": name, **r.to_json()}) for name, r in speeds.items()]
    path.write_text("\n".join(lines) + "\n")
    return scaling_page.Study(path)


def test_tables_hold_what_was_measured_and_dashes(tmp_path):
    found = study(tmp_path)
    assert (found.isas, found.best, found.threads) == (["amx", "avx2"], "amx", 2)
    text = scaling_page.measured(found)
    assert "| 2B, amx | 40.0 | 21.5 | 160 | 300 | - |" in text
    assert "| 2B, avx2 | 30.0 | - | - | - | - |" in text
    assert "| 2B | 40.0 | - | - | - | - | 28.2 |" in text  # by context
    assert "| 2B | 40.0 | - | - | 160 | - | - |" in text  # by batch


def test_every_machine_has_a_section_the_last_measured_first(tmp_path):
    for name, date in (("Old", "2026-01-01"), ("New", "2026-02-02"), ("Older", "2025-12-31")):
        record = make_record(40, machine={**MACHINE, "cpu": f"{name} CPU", "date": date})
        line = json.dumps({"cell": "2B/avx2/t2/c128/b1", **record.to_json()})
        (tmp_path / f"{name.lower()}.jsonl").write_text(line + "\n")
    sections = [scaling_page.part(found) for found in scaling_page.studies(tmp_path)]
    for section, name in zip(sections, ("New", "Old", "Older"), strict=True):
        assert section.startswith(f"### {name} CPU\n\n4 cores, 16 GiB, ")
        assert f"plots/scaling-{name.lower()}-light.svg" in section


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_picture_has_a_line_for_each_size_and_names_its_axes(tmp_path, theme):
    scaling_plot.draw(study(tmp_path), tmp_path / "s.svg", theme)
    texts = [e.text for e in ET.parse(tmp_path / "s.svg").iter("{http://www.w3.org/2000/svg}text")]
    for text in ("0.7B", "2B", "3B", "8B", "sequences", "4096", "avx2", "amx"):
        assert text in texts
    assert texts.count("tokens/s") == 3


def test_memory_and_speed_beside_f16_are_ratios_of_what_was_measured():
    both = {"shape": "3B", "resident_bytes": 10**9, "f16_resident_bytes": 66 * 10**8}
    decode = {
        **both,
        "phase": "decode",
        "tokens_per_s": 30.0,
        "f16_tokens_per_s": 4.0,
        "ratio": 7.5,
    }
    prefill = {**decode, "phase": "prefill", "ratio": 12.0}
    text = scaling_page.beside_f16([decode, prefill])
    assert "| 3B | 1.00 / 6.60 | **6.6** | 30.0 / 4.0 | **7.5** | 30 / 4 | **12.0** |" in text


def test_a_table_keeps_three_digits_and_marks_what_is_missing():
    text = table(["", "a"], [["x", 0.123], ["y", 12.34], ["z", 1234.5], ["w", None]])
    assert text.splitlines()[2:] == ["| x | 0.12 |", "| y | 12.3 |", "| z | 1234 |", "| w | - |"]


def test_a_model_is_made_once(tiny, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(
        scaling,
        "write_random_model",
        lambda *a, **k: made.append(a) or write_random_model(*a, **k),
    )
    assert scaling.model_of("2B", tmp_path) == scaling.model_of("2B", tmp_path)
    assert len(made) == 1

"""BitDistill's ablation from end to end at a tiny size: torch tells what the engine tells."""

import json
import random
import sys

import distill_rows
import distill_study
import pytest
from story_origin import ORIGINS

TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
TINY |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
QUICK = {"steps": 3, "compile": False, "context_length": 64, "batch_size": 2, "warmup_steps": 0}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Texts in which each collection has words of its own, and a quick study of them."""
    rng = random.Random(0)
    for i, name in enumerate(ORIGINS.values()):
        words = [["cat", "sun", "run"], ["king", "wolf", "gold"], ["bus", "tree", "school"]][i]
        stories = (" ".join(rng.choices(words, k=60)) for _ in range(40))
        (tmp_path / name).write_text("".join(f"<s>{story}</s>" for story in stories))
    (tmp_path / "val.txt").write_text("<s>The cat ran to the king.</s>")
    shape = {**distill_rows.BASE["shape"], **TINY}
    for name, changes in {
        "TASK": {"per_label": 40, "words": 8},
        "BASE": {**QUICK, "shape": shape},
        "WARM": QUICK,
        "TUNE": {"steps": 60, "context_length": 64, "learning_rate": 2e-2, "warmup_steps": 0},
    }.items():
        for key, value in changes.items():
            monkeypatch.setitem(getattr(distill_rows, name), key, value)
    monkeypatch.setattr(distill_study, "SEEDS", (1,))
    return tmp_path


def test_each_row_is_measured_and_a_study_that_was_cut_goes_on(data, tmp_path, monkeypatch):
    work, made = tmp_path / "work", []
    written = [f"--data={data}", f"--work={work}", "--record"]
    monkeypatch.setattr(sys, "argv", ["distill_study.py", *written])
    monkeypatch.setattr(distill_study, "machine_facts", lambda _: {})
    monkeypatch.setattr(distill_study, "record_path", lambda *_: None)
    monkeypatch.setattr(distill_study, "write_record", lambda lines, *_: made.append(lines))
    distill_study.main()
    about, *lines = json.loads(json.dumps(made[0]))
    assert [line["row"] for line in lines] == [row.name for row in distill_rows.ROWS]
    assert about["passages"] == 30
    for line in lines:
        assert line["right"].count("1") > 15  # 10 by guessing; the words give it away
        assert line["measured_by"] == ("torch" if line["row"] == "full precision" else "engine")
        assert line.get("as_torch", 30) >= 29
    monkeypatch.setattr(distill_study, "ROWS", distill_rows.ROWS[:2])
    distill_study.main()  # makes nothing anew
    assert made[1][:3] == made[0][:3]

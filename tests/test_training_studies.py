"""The training studies: every run has a config that is taken; the page shows what they gave."""

import pytest
import studies_page
from study_runs import COMMON, STUDIES

from bitinfer.train import TrainConfig

CHAT = {"val_chat.txt": 2.0}


@pytest.mark.parametrize("study", STUDIES)
def test_each_run_is_a_config_of_its_own(study):
    configs = [TrainConfig(**{**COMMON, **changes}) for changes in STUDIES[study].runs.values()]
    assert all(a != b for i, a in enumerate(configs) for b in configs[:i])


@pytest.fixture
def lines():
    """A record of two runs."""
    return [
        {
            "run": run,
            "study": "when",
            "parameters": 2_000_000,
            "tokens": 1_300_000,
            "validations": [[650_000, {"val.txt": loss + 1, **CHAT}]],
            "validation": {"val.txt": loss, "val_chat.txt": 1.25},
            "largest_grad_norm": 3.21,
            "cpu": "a CPU",
            "date": "2026-11-22T10:00:00+00:00",
            "commit": "abc",
        }
        for run, loss in (("from the start", 3.0), ("after training", 4.5))
    ]


def test_the_page_shows_losses_and_what_lies_between_them(lines):
    text = studies_page.parts({"when": lines})["when"]
    assert "1.3 M tokens each, a CPU, 2026-11-22, commit abc." in text
    assert "| from the start | 2.0 M | 3.000 | +0.000 | 20.09 | 1.250 | 3.2 |" in text
    assert "| after training | 2.0 M | 4.500 | +1.500 | 90.02 | 1.250 | 3.2 |" in text


def test_gaps_are_taken_size_by_size(lines):
    runs = {"full 0.1M": 5.0, "bitnet 0.1M": 5.25, "binary 0.1M": 5.5}
    runs |= {"full 2.2M": 4.0, "bitnet 2.2M": 4.125, "binary 2.2M": 4.0625}
    sizes = [
        {**lines[0], "study": "sizes", "run": run, "validation": {"val.txt": loss, **CHAT}}
        for run, loss in runs.items()
    ]
    sizes[1]["density"] = {"gate": [0.5, 0.25], "down": [0.375, 0.125]}
    parts = studies_page.parts({"sizes": sizes})
    assert "| 0.1M | 5.000 | +0.250 | +0.500 | +0.250 |" in parts["gaps"]
    assert "| 2.2M | 4.000 | +0.125 | +0.062 | -0.062 |" in parts["gaps"]
    assert "| bitnet 0.1M | 0.50 / 0.38 | 0.25 / 0.12 |" in parts["density"]


def test_seeds_are_compared_pair_by_pair(lines):
    runs = {
        "full, seed 1": 4.0,
        "bitnet, seed 1": 4.125,
        "binary, seed 1": 4.25,
        "full, seed 2": 4.5,
        "bitnet, seed 2": 5.0,
        "binary, seed 2": 4.75,
    }
    seeds = [
        {**lines[0], "study": "seeds", "run": run, "validation": {"val.txt": loss, **CHAT}}
        for run, loss in runs.items()
    ]
    text = studies_page.parts({"seeds": seeds})["spread"]
    assert "| full | 4.250 | 4.000 | 4.500 |" in text
    assert "| bitnet to full | 0.312 | 0.125 | 0.500 |" in text
    assert "| binary to full | 0.250 | 0.250 | 0.250 |" in text


def test_a_line_is_drawn_for_each_run(lines, tmp_path, monkeypatch):
    monkeypatch.setattr(studies_page, "DOCS", tmp_path)
    (tmp_path / "plots").mkdir()
    studies_page.draw("when", lines, "dark")
    picture = (tmp_path / "plots" / "study-when-dark.svg").read_text(encoding="utf-8")
    assert all(line["run"] in picture for line in lines)

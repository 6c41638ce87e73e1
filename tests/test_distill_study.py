"""The ablation of BitDistill: its table is counted right, its runs are configs that are taken."""

import distill_page
import pytest
from distill_rows import BASE, ROWS, TUNE, WARM

from bitinfer.train import DistillConfig, TrainConfig


def test_each_row_is_a_run_of_its_own():
    TrainConfig(**BASE)
    TrainConfig(**WARM)
    made = []
    for row in ROWS:
        config = TrainConfig(**{**TUNE, **row.settings, "data": ["task.jsonl"]})
        if row.weights is not None:
            config = DistillConfig(teacher="teacher", finetune=config, weights=row.weights)
        made.append((row.start, config))
    assert all(a != b for i, a in enumerate(made) for b in made[:i])


@pytest.fixture
def lines():
    """Two ways, two seeds, eight passages."""
    about = {
        "parameters": 2_940_000,
        "base": {"tokens": 819_200, "validation": 3.456},
        "warm": {"tokens": 327_680, "validation": 3.21},
        "tune": {"steps": 200, "batch_size": 16},
        "task": {"per_label": 1200, "words": 20},
        "passages": 8,
        "cpu": "a CPU",
        "date": "2026-11-22T10:00:00+00:00",
        "commit": "abc",
    }
    runs = [
        {"row": "full precision", "right": "11111110"},
        {"row": "ternary", "right": "11110000", "as_torch": 7, "compared": 8},
        {"row": "full precision", "right": "11111110"},
        {"row": "ternary", "right": "11000000"},
    ]
    return [about, *runs]


def test_the_table_has_accuracies_errors_and_differences_of_the_same_passages(lines):
    text = distill_page.part(lines)
    assert "engine on 7 of 8 answers" in text
    assert "200 steps of 16 of 3,600 passages of 20 words; 8 are held out." in text
    # 7 of 8; its error is sqrt(7/8 * 1/8 * 8/7 / 8) = 0.125.
    assert "| full precision | 87.5 % ± 12.5 | 87.5, 87.5 | - |" in text
    # Means of passages 1 1 .5 .5 0 0 0 0: variance 1.375/7; less 1 1 1 1 1 1 1 0: 1.875/7.
    # Of two seeds' 87.5 and 87.5 the variance is 0, of 50 and 25 it is 2 * 12.5^2.
    assert "the standard deviation of a row's accuracy is 12.5 points" in text
    assert "| ternary | 37.5 % ± 15.7 | 50.0, 25.0 | -50.0 ± 16.4 |" in text

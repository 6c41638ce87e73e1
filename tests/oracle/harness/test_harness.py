"""lm-evaluation-harness runs bitinfer as it runs transformers: `make harness`.

Its own class for transformers and ours get the same local tasks over the same weights. Differences
are those of rounding (test_logits.py), so sums of logprobs are compared within what a few flipped
activation codes move them by, and decisions exactly.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer
from transformers_oracle import Oracle

import bitinfer
from bitinfer.evaluate.harness import BitinferLM

CHOICES = [
    ("What color is the sky?", ["The sky is blue.", "The sky is green.", "A cat is an animal."], 0),
    ("What does a cat say?", ["A dog says woof.", "A cat says meow."], 1),
    ("How many legs does a dog have?", ["A dog has two legs.", "A dog has four legs."], 1),
    ("Once upon a time, there was a little", ["girl", "theorem", "of"], 0),
]
STORIES = [
    "Once upon a time, there was a little girl named Lily. She liked to play in the park." * 30,
    "The farmer woke up early and went to feed his cows.",
]
PROMPTS = ["Once upon a time", "The little dog", "One day, Tom and his mom"]
TASKS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "local_choice": (
        [{"question": q, "options": o, "gold": g} for q, o, g in CHOICES],
        {
            "output_type": "multiple_choice",
            "doc_to_text": "{{question}}",
            "doc_to_choice": "{{options}}",
            "doc_to_target": "{{gold}}",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        },
    ),
    "local_rolling": (
        [{"page": story} for story in STORIES],
        {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{page}}",
            "metric_list": [{"metric": "byte_perplexity"}],
        },
    ),
    "local_generate": (
        [{"prompt": prompt, "answer": "x"} for prompt in PROMPTS],
        {
            "output_type": "generate_until",
            "doc_to_text": "{{prompt}}",
            "doc_to_target": "{{answer}}",
            "generation_kwargs": {"until": ["\n", "."], "max_gen_toks": 24},
            "metric_list": [{"metric": "exact_match"}],
        },
    ),
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> TaskManager:
    """The tasks, made here: nothing is downloaded."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, (rows, config) in TASKS.items():
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        whole = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {
                "data_files": {"test": str(data)},
                "cache_dir": str(folder / "cache"),
            },
            "test_split": "test",
            **config,
        }
        (folder / f"{name}.yaml").write_text(json.dumps(whole))  # JSON is YAML
    return TaskManager(include_path=str(folder), include_defaults=False)


@pytest.fixture(scope="module")
def checkpoint(tales: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model's weights as a checkpoint with its tokenizer, for both."""
    folder = tmp_path_factory.mktemp("harness") / "tales"
    shutil.copytree(tales, folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bitinfer.default_model() / name, folder)
    return folder


@pytest.fixture(scope="module")
def results(checkpoint: Path, tales32: Oracle, tasks: TaskManager) -> tuple[dict[str, Any], ...]:
    """What the harness reports of ours and of transformers."""
    theirs = HFLM(
        pretrained=tales32.model, tokenizer=AutoTokenizer.from_pretrained(checkpoint), device="cpu"
    )
    ours = "bitinfer", {"pretrained": str(checkpoint), "kv_cache": "f32", "head": "source"}
    return tuple(
        simple_evaluate(model, arguments, tasks=list(TASKS), task_manager=tasks, bootstrap_iters=0)
        for model, arguments in (ours, (theirs, None))
    )


def answers(result: dict[str, Any], task: str) -> list[Any]:
    """The model's own answers, document by document."""
    samples = sorted(result["samples"][task], key=lambda sample: sample["doc_id"])
    return [sample["filtered_resps"] for sample in samples]


def test_accuracy_and_logprobs_of_choices_are_those_of_transformers(results) -> None:
    ours, theirs = (result["results"]["local_choice"] for result in results)
    assert ours["acc,none"] == theirs["acc,none"]
    assert ours["acc_norm,none"] == theirs["acc_norm,none"]
    for a, b in zip(*(answers(result, "local_choice") for result in results), strict=True):
        np.testing.assert_allclose([p for p, _ in a], [p for p, _ in b], atol=0.2)
        assert [greedy for _, greedy in a] == [greedy for _, greedy in b]


def test_rolling_perplexity_is_that_of_transformers(results) -> None:
    ours, theirs = (result["results"]["local_rolling"] for result in results)
    perplexities = [one["byte_perplexity,none"] for one in (ours, theirs)]
    assert perplexities[0] == pytest.approx(perplexities[1], rel=1e-3)


def test_greedy_continuations_are_those_of_transformers(results) -> None:
    ours, theirs = (answers(result, "local_generate") for result in results)
    assert ours == theirs
    assert all(text and "." not in text for (text,) in ours)


def test_chat_prompts_are_those_of_transformers(checkpoint: Path) -> None:
    chat = [{"role": "user", "content": "Hello!"}]
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = BitinferLM(str(checkpoint))
    text = model.apply_chat_template(chat)
    assert text == tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    expected = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    assert model.tok_encode(text) == expected

"""Fixtures of the comparison with transformers (`make oracle`). No test here may be skipped."""

import os

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # compiled kernels would round elsewhere
os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from source_form import write_source_form
from transformers_oracle import Oracle

from bitinfer import default_model
from bitinfer.engine import Engine
from bitinfer.model import Model

PROMPTS = (
    "Once upon a time, there was a little girl named Lily.",
    "One day, a dog named Max went to the park",
    "The sun was shining and the birds",
    "Tom and his mom went to the store to buy",
    "In a small village there lived an old woman who",
    "The king had three sons, and the youngest",
    "A big red ball rolled down the hill",
    "Sara liked to draw. She drew a",
    "It was raining, so the children",
    "The cat saw a bird in the tree and",
    "Long ago, in a forest far away, a bear",
    "Ben was sad because he lost his",
    "Mia found a shiny stone near the river.",
    "The farmer woke up early and",
    '"Can I help you?" asked the',
    "Every night the moon told the stars",
    "There was once a tiny fish who wanted",
    "Anna and Sam built a castle of sand.",
    "The teacher said to the class:",
    "A boy had a blue kite. He",
)
QUESTIONS = (
    "What color is the sky?",
    "What color is grass?",
    "How many legs does a dog have?",
    "What does a cat say?",
    "What do cows drink?",
    "Where do fish live?",
    "Is the sun hot or cold?",
    "What is your name?",
    "Hello!",
    "Tell me a story about a cat.",
)


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # these matrices are too small to share
    for module in ("torch", "transformers", "accelerate"):  # their warnings are not ours to mend
        config.addinivalue_line("filterwarnings", rf"ignore:::{module}(\..*)?")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report: Any = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, which no test of the oracle may be: {report.longrepr}"
    return report


def greedy(engine: Engine, prompt: list[int], count: int) -> list[int]:
    """``count`` greedy token ids after ``prompt``."""
    cache = engine.new_cache(len(prompt) + count)
    ids: list[int] = []
    step = prompt
    for _ in range(count):
        ids.append(int(engine.forward([step], [cache])[0].argmax()))
        step = ids[-1:]
    return ids


def comparable_engine(folder: Path) -> Engine:
    """Our engine without the roundings that transformers does not make."""
    return Engine.load(folder, kv_cache="f32", head="source", num_threads=2)


@pytest.fixture(scope="session")
def tales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as the Hugging Face checkpoint that it was converted from."""
    return write_source_form(default_model(), tmp_path_factory.mktemp("oracle") / "tales")


@pytest.fixture(scope="session")
def tales32(tales: Path) -> Oracle:
    return Oracle(tales, torch.float32)


@pytest.fixture(scope="session")
def tales64(tales: Path) -> Oracle:
    return Oracle(tales, torch.float64)


@pytest.fixture(scope="session")
def tales_engine() -> Engine:
    return comparable_engine(default_model())


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    """The prompts as token ids, BOS first."""
    with Model.load(default_model()) as model:
        return [model.tokenizer.encode(text, add_special_tokens=True) for text in PROMPTS]


@pytest.fixture(scope="session")
def stories(prompts: list[list[int]]) -> list[list[int]]:
    """Token ids of sampled stories: text that surprises the model now and then."""
    with Model.load(default_model()) as model:
        return [
            [*prompt, *model.generate(prompt, max_tokens=200, temperature=0.8, seed=seed).token_ids]
            for seed, prompt in enumerate(prompts)
        ]


@pytest.fixture(scope="session")
def greedy_texts(tales_engine: Engine, prompts: list[list[int]]) -> list[list[int]]:
    """Token ids of greedy stories and of answers to questions: what the model itself says."""
    texts = [[*prompt, *greedy(tales_engine, prompt, 100)] for prompt in prompts]
    with Model.load(default_model()) as model:
        for question in QUESTIONS:
            message = {"role": "user", "content": question}
            answer = model.chat([message], temperature=0, max_tokens=60).token_ids
            texts.append([*model.encode_chat([message]), *answer])
    return texts

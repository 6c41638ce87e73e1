"""Where a story comes from, as a task: no leak from train to test, nothing gives it away."""

import json
from pathlib import Path

import pytest
import story_origin


@pytest.fixture
def texts(tmp_path):
    """50 documents in each collection; each word names its document."""
    for name in story_origin.ORIGINS.values():
        stem, documents = Path(name).stem, []
        for i in range(50):
            story = "\n".join(f"{stem}-{i} word-{j}" for j in range(30))
            prompt = "<|user|>Tell me a story.<|assistant|>" if i % 2 else ""
            documents.append(f"<s>{prompt}{story}</s>")
        (tmp_path / name).write_text("\n".join(documents))
    return tmp_path


def task(folder, **settings):
    settings = {"per_label": 80, "words": 10, "seed": 3} | settings
    lines = story_origin.make_task(folder, **settings)
    return {part: list(map(json.loads, lines)) for part, lines in lines.items()}


def test_labels_are_balanced_and_right_and_no_document_is_in_both_parts(texts):
    parts, seen = task(texts), {}
    for part, count in (("train", 80), ("test", 20)):
        for label, name in story_origin.ORIGINS.items():
            own = [line["text"] for line in parts[part] if line["label"] == label]
            assert len(set(own)) == len(own) == count
            assert all(Path(name).stem in text for text in own)
        seen[part] = {
            word for line in parts[part] for word in line["text"].split() if "word" not in word
        }
    assert not seen["train"] & seen["test"]


def test_neither_prompts_nor_line_breaks_nor_lengths_tell_the_origin(texts):
    for lines in task(texts).values():
        for line in lines:
            assert len(line["text"].split(" ")) == 10
            assert not set(line["text"]) & set("\n<>|")


def test_the_seed_alone_decides(texts):
    assert task(texts) == task(texts)
    assert task(texts) != task(texts, seed=4)


def test_too_few_passages_are_refused(texts):
    with pytest.raises(
        ValueError, match=r"tinystories\.txt: expected 400 passages for test, got 6"
    ):
        task(texts, per_label=1600)

"""Write docs/samples.md: what the embedded model says, unedited; ``make docs`` runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import bitinfer

PAGE = Path(__file__).resolve().parent / "samples.md"
INTRODUCTION = """# What tales-14m says

Unedited, not chosen, and written by `make docs`: its first answers to these prompts, bad ones too.
The same on every machine: `bitinfer generate --seed 1 "Once upon a time"` prints the first story.
"""
BEGINNINGS = (
    "Once upon a time",
    "Lily had a red balloon.",
    "The old king was very sad",
    "One day, a little frog and a big bear",
)
QUESTIONS = (
    "What is your name?",
    "What can you do?",
    "Can I trust you?",
    "What color is the sky?",
    "What is 3 plus 4?",
    "Is a carrot a fruit?",
    "Why do we need a coat?",
    "What does a cow say?",
    "What is the capital of France?",
    "What is photosynthesis?",
    "What is 312 times 47?",
    "Tell me a story about a dragon.",
)
CHAT = ("Hello!", "What is your name?", "What color is a frog?", "Tell me a story about a cat.")
SEED = 1


def samples_page() -> str:
    """The whole page."""
    with bitinfer.Model.load(bitinfer.default_model()) as model:
        return "\n".join([INTRODUCTION, *_stories(model), *_answers(model), *_chat(model)])


def _stories(model: bitinfer.Model) -> Iterator[str]:
    yield f"## Stories\n\nThe model's own sampling settings, seed {SEED}.\n"
    for prompt in BEGINNINGS:
        done = model.generate(prompt, seed=SEED)
        cut = " …" if done.finish_reason == "length" else ""
        yield _quoted(f"**{prompt}**{done.text}{cut}")


def _answers(model: bitinfer.Model) -> Iterator[str]:
    yield "## Answers\n\nEach the first of a chat of its own; greedy.\n"
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        done = model.chat(messages, temperature=0)
        cut = " …" if done.finish_reason == "length" else ""
        yield _quoted(f"**{question}** {done.text.strip()}{cut}")


def _chat(model: bitinfer.Model) -> Iterator[str]:
    yield f"## A chat\n\nThe model's own sampling settings, seed {SEED}.\n"
    messages: list[dict[str, str]] = []
    for question in CHAT:
        messages.append({"role": "user", "content": question})
        done = model.chat(messages, seed=SEED)
        messages.append({"role": "assistant", "content": done.text})
        cut = " …" if done.finish_reason == "length" else ""
        yield _quoted(f"**{question}** {done.text.strip()}{cut}")


def _quoted(text: str) -> str:
    lines = [f"> {line}".rstrip() for line in text.split("\n")]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(samples_page(), encoding="utf-8")

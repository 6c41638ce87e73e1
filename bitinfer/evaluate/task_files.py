"""Files of questions and of labelled texts, as JSON lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bitinfer.errors import DataError
from bitinfer.evaluate.choice import Question
from bitinfer.json_file import shown
from bitinfer.text_file import JsonLine, read_json_lines

TEXT = "{text}"  # where a template has the text


def read_questions(path: Path) -> list[Question]:
    """Lines with "prompt", "choices" and "answer": an index from 0, or one of the choices.

    Raises:
        DataError: a line is not such a question; names file and line.
    """
    return [_question(line) for line in read_json_lines(path)]


def _question(line: JsonLine) -> Question:
    prompt, choices, answer = line.text("prompt"), line.value("choices"), line.value("answer")
    if not isinstance(choices, list) or not all(isinstance(c, str) and c for c in choices):
        raise line.error("choices", "a list of texts that are not empty")
    if len(choices) < 2 or len(set(choices)) < len(choices):
        raise line.error("choices", "at least two different texts")
    if isinstance(answer, str) and answer in choices:
        answer = choices.index(answer)
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise line.error("answer", f"0 to {len(choices) - 1}, or one of the choices")
    return Question(prompt, tuple(choices), answer, line.where)


@dataclass(frozen=True)
class LabelledTexts:
    """Texts to be classified.

    Attributes:
        labels: All labels; the choices of each question stand for them, in this order.
        questions: A question for each text, whose answer is its label.
    """

    labels: tuple[str, ...]
    questions: list[Question]


def read_labelled_texts(
    path: Path, *, template: str = TEXT, verbalizers: Mapping[str, str] | None = None
) -> LabelledTexts:
    """Lines with "text" and "label", a text or a whole number.

    Args:
        path: The file.
        template: What is asked, with "{text}" where the text stands.
        verbalizers: For each label the words that stand for it; None: the labels of the file
            themselves, sorted.

    Raises:
        DataError: a line is not such a text, or has a label that is none of ``verbalizers``;
            names file and line. Or there are fewer than two labels.
        ValueError: the template has no "{text}", or two labels have the same words.
    """
    if TEXT not in template:
        raise ValueError(f"template: expected {TEXT} in it, got {template!r}")
    lines = list(read_json_lines(path))
    found = [_label(line) for line in lines]
    words = dict(verbalizers) if verbalizers else {label: label for label in sorted(set(found))}
    if len(words) < 2 or not all(words.values()):
        raise DataError(f"{path}: expected at least two labels, each a text, got {_names(words)}")
    if len(set(words.values())) < len(words):
        raise ValueError(f"verbalizer: expected other words for each label, got {words}")
    labels = tuple(words)
    questions = []
    for line, label in zip(lines, found, strict=True):
        if label not in words:
            raise line.error("label", f"one of {_names(words)}")
        prompt = template.replace(TEXT, line.text("text"))
        choices = tuple(words.values())
        questions.append(Question(prompt, choices, labels.index(label), line.where))
    return LabelledTexts(labels, questions)


def _label(line: JsonLine) -> str:
    label = line.value("label")
    if isinstance(label, str) or type(label) is int:
        return str(label)
    raise line.error("label", "a text or a whole number")


def _names(words: Mapping[str, str]) -> str:
    return shown(", ".join(repr(label) for label in words)) or "none"

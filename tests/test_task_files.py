"""Files of questions and labelled texts: what they become, and what is refused with its line."""

import json

import pytest

from bitinfer.errors import DataError
from bitinfer.evaluate import read_labelled_texts, read_questions

GOOD = {"prompt": "Snow is", "choices": ["white", "black"], "answer": 0}
FILM = {"text": "What a film!", "label": "good"}


@pytest.fixture
def file(tmp_path):
    """Writes rows as a file."""

    def write(*rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("\n".join(json.dumps(row) for row in rows))
        return path

    return write


def test_questions_have_an_index_or_a_choice_as_their_answer(file):
    first, second = read_questions(file(GOOD, {**GOOD, "answer": "black", "id": 7}))
    assert (first.prompt, first.choices, first.answer) == ("Snow is", ("white", "black"), 0)
    assert second.answer == 1
    assert second.where.endswith("rows.jsonl, line 2")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"prompt": None}, '"prompt": expected a text, got None'),
        ({"choices": "white"}, '"choices": expected a list of texts that are not empty'),
        ({"choices": ["white", ""]}, '"choices": expected a list of texts that are not empty'),
        ({"choices": ["white"]}, '"choices": expected at least two different texts'),
        ({"choices": ["white", "white"]}, '"choices": expected at least two different texts'),
        ({"answer": 2}, '"answer": expected 0 to 1, or one of the choices, got 2'),
        ({"answer": True}, '"answer": expected 0 to 1, or one of the choices, got True'),
        ({"answer": "grey"}, "\"answer\": expected 0 to 1, or one of the choices, got 'grey'"),
    ],
)
def test_what_is_no_question_is_refused_with_its_line(file, change, told):
    with pytest.raises(DataError) as error:
        read_questions(file(GOOD, {**GOOD, **change}))
    assert f"rows.jsonl, line 2: {told}" in str(error.value)


@pytest.mark.parametrize("key", GOOD)
def test_a_missing_key_is_named_with_its_line(file, key):
    bad = {name: value for name, value in GOOD.items() if name != key}
    with pytest.raises(DataError, match=rf'rows\.jsonl, line 2: expected the key "{key}", got "'):
        read_questions(file(GOOD, bad))


def test_labelled_texts_ask_for_their_labels(file):
    texts = read_labelled_texts(file(FILM, {"text": "{text} Bah", "label": 3}, FILM))
    assert texts.labels == ("3", "good")
    assert [(q.prompt, q.choices, q.answer) for q in texts.questions[:2]] == [
        ("What a film!", ("3", "good"), 1),
        ("{text} Bah", ("3", "good"), 0),
    ]


def test_a_template_and_words_stand_for_text_and_labels(file):
    texts = read_labelled_texts(
        file(FILM), template='{"{text}"} It was', verbalizers={"bad": "awful", "good": "great"}
    )
    assert texts.labels == ("bad", "good")
    (question,) = texts.questions
    assert question.prompt == '{"What a film!"} It was'
    assert (question.choices, question.answer) == (("awful", "great"), 1)


def test_labels_that_cannot_be_used_are_refused(file):
    words = {"good": "great", "bad": "awful"}
    rows = file(FILM, {"text": "Well.", "label": "so so"})
    with pytest.raises(DataError, match=r"line 2: \"label\": expected one of 'good', 'bad', got"):
        read_labelled_texts(rows, verbalizers=words)
    with pytest.raises(DataError, match='line 1: "label": expected a text or a whole number'):
        read_labelled_texts(file({**FILM, "label": True}))
    with pytest.raises(DataError, match="expected at least two labels, each a text, got 'good'"):
        read_labelled_texts(file(FILM))
    with pytest.raises(ValueError, match=r"template: expected \{text\} in it, got 'It was'"):
        read_labelled_texts(rows, template="It was")
    with pytest.raises(ValueError, match="verbalizer: expected other words for each label"):
        read_labelled_texts(rows, verbalizers={"good": "so", "bad": "so"})

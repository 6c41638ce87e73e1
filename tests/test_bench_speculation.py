"""benchmarks/speculation.py: replies are replayed as they are, and the figures add up."""

import pytest
from speculation import (
    Task,
    drafting_model,
    measure_costs,
    measure_right,
    measure_speed,
    table,
    text_tasks,
)

from bitinfer.model import Model

STORY = "Tom had a red ball. He ran to the park. A ball is round. The ball fell off. " * 9


@pytest.fixture(scope="module")
def model():
    with Model.load("tales-14m", num_threads=1, context_length=200) as loaded:
        yield loaded


def test_tasks_continue_edit_and_quote_a_piece_of_text(model):
    tasks = text_tasks(model, STORY, 1, 60, 30)
    replies = {task.kind: model.tokenizer.decode(task.reply) for task in tasks}
    assert model.tokenizer.decode(tasks[0].prompt + tasks[0].reply).strip() in STORY
    assert replies["editing"].startswith("Tom had a red something.")
    assert 'First, it says: "He ran to the park."' in replies["quoting"]


def test_what_is_right_is_counted(model):
    found = measure_right(model, "abc", [Task("copy", [7, *range(10, 40)], [*range(11, 31)])])
    assert [r["draft"] for r in found] == [2, 4, 8]
    for record in found:  # the first token is plain, then drafts are right
        assert record["tokens"] == 20
        assert record["accepted"] > 20 * record["draft"] / (record["draft"] + 1) - 8
        runs = record["tokens"] - record["accepted"]
        assert record["tokens_per_run"] == record["tokens"] / runs
    assert "| n-grams | abc | copy | 4 |" in table(found)


def test_a_model_that_drafts_for_itself_is_always_right(model):
    done = model.generate([1, 400], max_tokens=19, temperature=0, repetition_penalty=1)
    task = Task("own", [1, 400], list(done.token_ids))
    drafter = drafting_model(model)
    for record in measure_right(model, "abc", [task], drafter):
        assert record["drafts"] == "tales-14m"
        assert record["accepted"] > 19 // 2
        assert record["drafted"] - record["accepted"] <= 1  # the last may go on after the end
    (speed,) = measure_speed(model.engine, "abc", [task], 2, drafter)
    assert (speed["drafts"], speed["text"]) == ("tales-14m", "abc")


def test_speed_and_costs_are_of_the_same_rounds(model):
    tasks = text_tasks(model, STORY, 1, 60, 12)
    found = measure_speed(model.engine, "abc", tasks, 2)
    assert [record["kind"] for record in found] == ["continuing", "editing", "quoting"]
    assert all(len(r["tokens_per_s_off"]) == len(r["tokens_per_s_auto"]) == 2 for r in found)
    costs = measure_costs(model.engine, 50, 1)
    assert costs[0]["steps"]["median"] == 1.0
    assert [record["tokens"] for record in costs] == [1, 2, 3, 5, 9]

"""A chat's turns: what the model sees, what is kept, and how questions are taken back."""

from __future__ import annotations

import pytest
from chat_model import ScriptedModel

from bitinfer.cli.chat.recorder import Recorder
from bitinfer.cli.chat.session import Session, Turn
from bitinfer.cli.chat.settings import ChatSettings
from bitinfer.errors import ContextLengthError, HistoryError
from bitinfer.history import History
from bitinfer.model import Model


@pytest.fixture
def history(tmp_path):
    with History.open(tmp_path / "history.db") as opened:
        yield opened


@pytest.fixture(scope="module")
def real_model():
    with Model.load("tales-14m", num_threads=1, context_length=128) as loaded:
        yield loaded


def begin(model, history=None, notes=None, **options) -> Session:
    settings = ChatSettings(model, options)
    warn = [].append if notes is None else notes.append
    recorder = Recorder(history, "tales-14m", lambda: settings.sampling, warn)
    return Session(model, settings, recorder, warn=warn)


def say(pieces) -> str:
    return "".join(pieces)


def contents(session: Session) -> list[str]:
    return [turn.content for turn in session.turns]


def kept(history: History) -> list[tuple[str, str, str | None]]:
    latest = history.latest()
    assert latest is not None
    return [(m.role, m.content, m.finish_reason) for m in history.messages(latest.id)]


def test_conversation_is_kept_between_turns(real_model) -> None:
    talk = begin(real_model, temperature=0.0, max_tokens=12)
    first = say(talk.ask("What color is the sky?"))
    second = say(talk.ask("Hi"))
    messages = [
        {"role": "user", "content": "What color is the sky?"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "Hi"},
    ]
    assert second == real_model.chat(messages, temperature=0, max_tokens=12).text
    talk.clear()
    assert say(talk.ask("What color is the sky?")) == first


def test_model_sees_system_and_turns() -> None:
    model = ScriptedModel(["Hel", "lo"])
    talk = begin(model)
    talk.system = "Be kind"
    assert say(talk.ask("Hi")) == "Hello"
    say(talk.ask("More"))
    assert model.prompts[1] == "system:Be kind\nuser:Hi\nassistant:Hello\nuser:More\nassistant:"


def test_oldest_turns_are_left_out_half_a_context_at_once() -> None:
    notes: list[str] = []
    model = ScriptedModel(context_length=200)
    talk = begin(model, notes=notes, max_tokens=40)
    for number in range(12):
        say(talk.ask(f"question {number:02}"))  # 31 tokens with its answer
    assert len(talk.turns) == 24  # they are still there, to be saved
    assert notes[0] == "context is full: the model forgot the oldest 3 turns"
    assert len(notes) == 3
    assert all(len(prompt) <= 160 for prompt in model.prompts)
    assert model.prompts[-1].startswith("user:question")


def test_dropped_turns_make_room_in_a_real_model(real_model) -> None:
    notes: list[str] = []
    talk = begin(real_model, notes=notes, temperature=0.0, max_tokens=12)
    for _ in range(12):
        assert say(talk.ask("What is the color of the big sky today?"))
    assert notes


def test_question_longer_than_the_context_is_refused_and_forgotten(history) -> None:
    talk = begin(ScriptedModel(), history)
    with pytest.raises(ContextLengthError):
        say(talk.ask("word " * 300))
    assert talk.turns == []
    assert kept(history) == []


def test_stopped_reply_stays_in_the_conversation(history) -> None:
    talk = begin(ScriptedModel(["one ", "two ", "three"]), history)
    pieces = talk.ask("Count")
    assert next(pieces) + next(pieces) == "one two "
    pieces.close()
    assert contents(talk) == ["Count", "one two "]
    assert kept(history) == [("user", "Count", None), ("assistant", "one two ", "cancelled")]


def test_retry_keeps_the_question_and_takes_another_seed(history) -> None:
    model = ScriptedModel(["first"], ["second"], ["third"])
    talk = begin(model, history, seed=2**64 - 1)
    for pieces in (talk.ask("Hi"), talk.retry(), talk.retry()):
        say(pieces)
    assert contents(talk) == ["Hi", "third"]
    assert [options["seed"] for options in model.options] == [2**64 - 1, 0, 1]
    assert kept(history) == [("user", "Hi", None), ("assistant", "third", "stop")]
    assert len(history.all_messages(1)) == 4  # the old answers are branches


def test_retry_that_says_nothing_leaves_the_old_answer(history) -> None:
    talk = begin(ScriptedModel(["first"], []), history)
    say(talk.ask("Hi"))
    say(talk.retry())
    assert contents(talk) == ["Hi", "first"]
    assert [content for _, content, _ in kept(history)] == ["Hi", "first"]


def test_undo_and_edit_go_back_one_question(history) -> None:
    model = ScriptedModel(["a"], ["b"], ["c"])
    talk = begin(model, history)
    say(talk.ask("one"))
    say(talk.ask("two"))
    say(talk.edit("zwei"))
    assert contents(talk) == ["one", "a", "zwei", "c"]
    assert model.prompts[-1] == "user:one\nassistant:a\nuser:zwei\nassistant:"
    talk.undo()
    assert contents(talk) == ["one", "a"]
    assert [content for _, content, _ in kept(history)] == ["one", "a"]
    talk.undo()
    assert talk.turns == []
    assert talk.question is None


def test_cleared_conversation_is_another_one_in_the_history(history) -> None:
    talk = begin(ScriptedModel(), history, temperature=0.25)
    say(talk.ask("one"))
    talk.clear()
    say(talk.ask("two"))
    assert [c.title for c in history.list()] == ["two", "one"]
    assert history.list()[0].settings == {"temperature": 0.25}


def test_change_of_system_and_settings_is_kept(history) -> None:
    talk = begin(ScriptedModel(), history)
    say(talk.ask("one"))
    talk.system = "Be kind"
    talk.settings.read("temperature", "0.25")
    say(talk.ask("two"))
    (conversation,) = history.list()
    assert conversation.system == "Be kind"
    assert conversation.settings == {"temperature": 0.25}


def test_loaded_turns_are_kept_and_resumed_ones_go_on(history) -> None:
    talk = begin(ScriptedModel(), history)
    talk.load([Turn("user", "old"), Turn("assistant", "reply")])
    say(talk.ask("new"))
    expected = ["old", "reply", "new", "yes"]
    assert [content for _, content, _ in kept(history)] == expected
    again = begin(ScriptedModel(), history)
    again.resume(1, [Turn(m.role, m.content, m.id) for m in history.messages(1)])
    say(again.ask("newer"))
    assert [content for _, content, _ in kept(history)] == [*expected, "newer", "yes"]
    assert len(history.list()) == 1


def test_chat_goes_on_when_the_history_fails(history) -> None:
    notes: list[str] = []
    talk = begin(ScriptedModel(), history, notes)
    say(talk.ask("one"))

    def fail(*_: object) -> None:
        raise HistoryError("history: disk is full")

    history.add_message = fail
    assert say(talk.ask("two")) == "yes"
    assert say(talk.ask("three")) == "yes"
    assert notes == ["history: disk is full; what follows is not kept"]
    assert contents(talk) == ["one", "yes", "two", "yes", "three", "yes"]


THOUGHT = ["<think>", "Hm.", "</think>", "\n\nBlue."]


@pytest.mark.parametrize(
    ("template", "sent"),
    [
        ("{{ content }}", "Blue."),
        ("{{ content.split('</think>')[-1] }}", "<think>Hm.</think>\n\nBlue."),  # it does it
    ],
)
def test_thinking_is_sent_back_only_to_templates_that_know_of_it(template, sent) -> None:
    model = ScriptedModel(THOUGHT, template=template)
    talk = begin(model)
    say(talk.ask("Sky?"))
    say(talk.ask("Sure?"))
    assert model.prompts[1] == f"user:Sky?\nassistant:{sent}\nuser:Sure?\nassistant:"
    assert contents(talk)[1] == "".join(THOUGHT)


def test_block_that_the_template_opened_is_put_before_the_reply() -> None:
    model = ScriptedModel(["Hm.", "</think>", "Blue."])
    model.ending = "assistant:<think>\n"
    assert say(begin(model).ask("Sky?")) == "<think>\nHm.</think>Blue."


def test_template_that_leaves_the_system_out_is_noticed(real_model) -> None:
    talk = begin(real_model)
    talk.system = "Be kind"
    assert talk.ignores_system()
    other = begin(ScriptedModel())
    other.system = "Be kind"
    assert not other.ignores_system()

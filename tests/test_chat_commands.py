"""Slash commands: what each does, and what is said when it cannot be done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chat_model import ScriptedModel
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from bitinfer.cli.chat import commands
from bitinfer.cli.chat.completer import CommandCompleter
from bitinfer.cli.chat.piped import PipedChat
from bitinfer.cli.chat.recorder import Recorder
from bitinfer.cli.chat.session import Session
from bitinfer.cli.chat.settings import NAMES, SWITCHES, ChatSettings
from bitinfer.sampling import SETTINGS, SamplingParams


class Talk:
    """A chat that is fed lines; what it says is kept."""

    def __init__(self, *replies, capsys, folder) -> None:
        self.model = ScriptedModel(*replies)
        self.model.path = folder
        settings = ChatSettings(self.model, {})
        recorder = Recorder(None, "", dict, print)
        self.session = Session(self.model, settings, recorder, warn=print)
        self._lines: list[str] = []
        self._capsys = capsys
        self.prefills: list[str] = []
        self.chat = PipedChat(self.session, self._ask)

    def _ask(self, prefill: str) -> str | None:
        self.prefills.append(prefill)
        return self._lines.pop(0) if self._lines else None

    def do(self, *lines: str) -> str:
        """Type lines; what is said that is no reply."""
        self._lines = list(lines)
        self.chat.run()
        return self._capsys.readouterr().err

    @property
    def contents(self) -> list[str]:
        return [turn.content for turn in self.session.turns]


@pytest.fixture
def talk(capsys, tmp_path):
    return Talk(["one"], ["two"], ["three"], capsys=capsys, folder=tmp_path)


@pytest.mark.parametrize("text", ["/help", "/?", "/set top_k 3", "/system a\nb", "/HELP", "/bye "])
def test_lines_that_are_commands(text) -> None:
    assert commands.is_command(text)


@pytest.mark.parametrize("text", ["/etc/passwd is what?", "// a comment", "a /help", "/", "/2", ""])
def test_lines_that_are_questions(text) -> None:
    assert not commands.is_command(text)


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("/sett top_k 3", ("unknown command /sett", "did you mean /set?")),
        ("/xyzzy", ("unknown command /xyzzy", "/help lists all")),
        ("/set temprature 1", ("unknown setting 'temprature'", "did you mean temperature?")),
        ("/set qqq 1", ("unknown setting 'qqq'", "/set lists all")),
        ("/set temperature 101", ("temperature", "from 0 to 100", "got 101")),
        ("/set temperature warm", ("temperature", "from 0 to 100", "'warm'")),
        ("/set top_k -1", ("top_k", "from 0 to", "got -1")),
        ("/set max_tokens 0", ("max_tokens", "from 1 up", "'0'")),
        ("/set thinking maybe", ("thinking", "show or hide", "'maybe'")),
        ("/stats perhaps", ("stats", "off or on", "'perhaps'")),
        ("/stats", ("no reply yet",)),
        ("/show modle", ("did you mean model?",)),
        ("/retry", ("no question",)),
        ("/undo", ("no question",)),
        ("/edit", ("no question",)),
        ("/save", ("/save FILE.json",)),
        ("/save x.json", ("nothing was said",)),
        ("/export x.pdf", (".md or .json",)),
        ("/load", ("/load FILE.json",)),
        ("/load no such file.json", ("no such file.json", "no such file or directory")),
        ("/load ~", ("expected a file",)),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(line, parts, talk, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = talk.do(line)
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert all(part in said for part in parts), said
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_command_and_fits_80_columns(talk) -> None:
    said = talk.do("/help")
    assert all(f"/{name}" in said for name in commands.COMMANDS)
    assert max(map(len, said.splitlines())) <= 80


def test_docs_show_the_help() -> None:
    page = Path(__file__).resolve().parent.parent / "docs" / "chat.md"
    assert "\n".join(commands.help_lines()) in page.read_text(encoding="utf-8")


def test_settings_take_effect_are_listed_and_reset(talk) -> None:
    talk.do("/set top-k 7", "/set temperature=0.2", "/set max_tokens 9", "Hi")
    assert talk.model.options[-1] == {"top_k": 7, "temperature": 0.2}
    said = talk.do("/set")
    assert "\ntop_k               7  (default 0)\n" in said
    assert "max_tokens          9  (default 50)" in said
    assert len(said.splitlines()) == len(NAMES)
    assert "temperature 0.5 (0 to 100)" in talk.do("/set temperature default")
    talk.do("Hi")
    assert talk.model.options[-1] == {"top_k": 7}


def test_every_sampling_setting_can_be_set_to_its_default(talk) -> None:
    for name in SETTINGS:
        value = getattr(SamplingParams(), name)
        text = "15=-2.5" if name == "logit_bias" else "3" if value is None else str(value)
        assert not talk.do(f"/set {name} {text}").startswith("error"), name
    for name, (choices, _) in SWITCHES.items():
        assert choices[-1] in talk.do(f"/set {name} {choices[-1]}")


def test_undo_retry_and_edit(talk) -> None:
    said = talk.do("first", "/retry", "/edit", "second", "/undo")
    assert talk.prefills[3] == "first"
    assert talk.model.prompts[2].startswith("user:second\n")
    assert said == "forgot: second\n"
    assert talk.contents == []


def test_edit_that_is_left_empty_changes_nothing(talk) -> None:
    talk.do("first", "/edit", "")
    assert talk.contents == ["first", "one"]


def test_edit_may_end_in_a_command_or_at_the_end_of_input(talk) -> None:
    assert "forgot: first" in talk.do("first", "/edit", "/undo", "again", "/edit")
    assert talk.contents == ["again", "two"]


def test_retry_at_temperature_0_says_that_nothing_changes(talk) -> None:
    assert "at temperature 0" in talk.do("/set temperature 0", "Hi", "/retry")


def test_system_is_set_shown_and_taken_back(talk) -> None:
    said = talk.do("/system", "/system Be\nkind", "/system", "Hi", "/system off", "Ho")
    assert said == "none\nsystem set\nBe\nkind\nsystem off\n"
    assert talk.model.prompts[0].startswith("system:Be\nkind\nuser:Hi")
    assert talk.model.prompts[1].startswith("user:Hi")


def test_clear_forgets_all(talk) -> None:
    talk.do("Hi", "/clear", "Ho")
    assert talk.model.prompts[1] == "user:Ho\nassistant:"


def test_save_and_load_keep_the_conversation(talk, tmp_path, capsys) -> None:
    path = tmp_path / "my chat.json"
    said = talk.do("/system Be kind", "Hi", f'/save "{path}"', "Ho", "/save")
    assert said.endswith(f"wrote {path}\nwrote {path}\n")  # a second time, without a name
    assert path.stat().st_mode & 0o777 == 0o600
    other = Talk(capsys=capsys, folder=tmp_path)
    assert f"loaded 4 messages from {path}" in other.do(f"/load {path}", "More")
    assert other.contents == ["Hi", "one", "Ho", "two", "More", "yes"]
    assert other.model.prompts[0].startswith("system:Be kind\nuser:Hi\nassistant:one\n")


def test_no_file_is_overwritten_unasked(talk, tmp_path) -> None:
    path = tmp_path / "a.json"
    path.write_text("mine")
    assert "-f before the name" in talk.do("Hi", f"/save {path}")
    assert path.read_text() == "mine"
    talk.do(f"/save -f {path}")
    assert json.loads(path.read_text())["messages"][0] == {"role": "user", "content": "Hi"}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_export_writes_markdown_and_json(talk, tmp_path) -> None:
    page, data = tmp_path / "a.md", tmp_path / "a.JSON"
    talk.do("Hi there", f"/export {page}", f"/export {data}")
    text = page.read_text()
    assert text.startswith("# Hi there\n")
    assert "## User\n\nHi there\n\n## Assistant\n\none\n" in text
    assert json.loads(data.read_text())["messages"][1]["content"] == "one"


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "JSON object"),
        ("[1]", "expected a JSON object, got list"),
        ('{"messages": 1}', '"messages"'),
        ('{"messages": [{"role": "robot", "content": "x"}]}', "messages[0]: expected role 'user'"),
        ('{"messages": [{"role": "user", "content": 7}]}', "content as a string"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "expected role 'user'"),
        ('{"messages": ["x\\u001b[2J"]}', "messages[0]"),
    ],
)
def test_file_that_is_no_conversation_is_refused(content, part, talk, tmp_path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    said = talk.do("Hi", f"/load {path}")
    assert said.startswith("error: ")
    assert part in said
    assert said.count("\n") == 1
    assert "\x1b" not in said
    assert talk.contents == ["Hi", "one"]


def test_load_takes_what_chat_programs_write(talk, tmp_path) -> None:
    path = tmp_path / "a.json"
    messages = [
        {"role": "system", "content": "Be kind"},
        {"role": "user", "content": "Hi", "name": "me"},
        {"role": "assistant", "content": "Ho"},
    ]
    path.write_text(json.dumps({"messages": messages}))
    talk.do(f"/load {path}")
    assert talk.session.system == "Be kind"
    assert talk.contents == ["Hi", "Ho"]


def completions(text: str) -> list[str]:
    found = CommandCompleter().get_completions(Document(text), CompleteEvent())
    return [text[: len(text) + c.start_position] + c.text for c in found]


def test_tab_completes_commands_settings_values_and_files(tmp_path) -> None:
    assert completions("/s") == ["/set ", "/show ", "/system ", "/stats ", "/save "]
    assert completions("/by") == ["/bye"]
    assert completions("/set te") == ["/set temperature "]
    assert completions("/set thinking ") == [
        *("/set thinking show", "/set thinking hide", "/set thinking default")
    ]
    assert completions("/set seed d") == ["/set seed default"]
    assert completions("/show t") == ["/show template"]
    assert completions("/nope x") == completions("hello") == completions("a\n/s") == []
    (tmp_path / "a chat.json").touch()
    assert completions(f"/load {tmp_path}/a") == [f"/load {tmp_path}/a chat.json"]

"""`bitinfer train` from end to end, and what docs/training.md shows."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import bitinfer
from bitinfer.cli import main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training.md"
TEXT = "".join(f"<s>There were {n} cats and {n + 1} hats.</s>\n" for n in range(30))
SHAPE = ["hidden_size=32", "intermediate_size=48", "num_hidden_layers=1"]
SMALL = [
    *("--steps", "3", "--vocab-size", "270", "--context-length", "16", "--batch-size", "2"),
    *(option for value in SHAPE for option in ("--shape", value)),
]


@pytest.fixture(autouse=True)
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with texts, which is the current one."""
    monkeypatch.chdir(tmp_path)
    Path("stories.txt").write_text(TEXT)
    Path("held-out.txt").write_text(TEXT[:200])


def invoke(*arguments: str, text: str = "") -> Result:
    return CliRunner().invoke(main, arguments, input=text)


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_commands_of_the_page_work():
    commands = [line for block in snippets("sh") for line in block.splitlines()]
    assert [shlex.split(line)[1] for line in commands] == ["train", "chat", "train"]
    for line in commands:
        arguments = shlex.split(line)[1:]
        small = SMALL if arguments[0] == "train" and "--resume" not in arguments else []
        done = invoke(*arguments, *small, text="Hello\n")
        assert done.exit_code == 0, (line, done.output)
    assert "wrote run/model: " in done.stdout
    assert "step 3: held-out.txt: loss" not in done.stderr  # it was done before
    assert len(Path("run/log.csv").read_text().splitlines()) == 4
    drawn = invoke("train", "run", "--resume", "--plot", "run.svg")
    assert drawn.exit_code == 0 if Path("run.svg").exists() else "matplotlib" in drawn.stderr


def test_the_python_of_the_page_runs(capsys: pytest.CaptureFixture[str]):
    (code,) = snippets("py")
    code = code.replace("vocab_size=300", "vocab_size=270").replace("steps=20", "steps=2")
    small = "shape={'hidden_size': 32, 'intermediate_size': 48, 'num_hidden_layers': 1}"
    exec(code.replace("vocab_size=", f"{small}, vocab_size="), {})
    assert capsys.readouterr().out.splitlines()[-1].endswith("another-run/model")


def told(*arguments: str) -> str:
    """The one line of an error."""
    done = invoke("train", *arguments)
    assert done.exit_code == 1, done.output
    line, *others = [line for line in done.stderr.splitlines() if not line.startswith("training: ")]
    assert not others
    return line


def test_a_run_is_not_resumed_with_other_settings_nor_begun_twice():
    assert invoke("train", "stories.txt", "run", *SMALL).exit_code == 0
    assert told("run", "--resume", "--learning-rate", "1").startswith(
        "error: learning_rate: expected 0.0015 as the run in run began, got 1.0: resume without it"
    )
    assert told("held-out.txt", "run", "--resume").startswith("error: data: expected")
    assert "got one with a run: resume it (--resume)" in told("stories.txt", "run", *SMALL)
    assert invoke("train", "run", "--resume", "--save-every", "1").exit_code == 0


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "bad.txt: expected text, got an empty file"),
        (b"a\xff", "bad.txt: expected UTF-8 text, got byte 0xff at 1: convert the file"),
        (None, "bad.txt: file not found"),
    ],
)
def test_a_bad_text_is_one_line_and_may_be_mended(content, expected):
    if content is not None:
        Path("bad.txt").write_bytes(content)
    tokenizer = ("--tokenizer", str(bitinfer.default_model()))
    assert told("stories.txt", "bad.txt", "run", *SMALL, *tokenizer) == f"error: {expected}"
    Path("bad.txt").write_text("good now")
    assert invoke("train", "run", "--resume").exit_code == 0


def test_a_tokenizer_larger_than_the_vocabulary_is_one_line():
    tokenizer = ("--tokenizer", str(bitinfer.default_model()), "--shape", "vocab_size=4095")
    expected = "expected token ids below 4095 (rows of the embedding), got 4095"
    assert expected in told("stories.txt", "run", *SMALL, *tokenizer)

"""``bitinfer generate``: where the prompt comes from, what goes out, and how it ends."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import Terminal
from test_cli import ENVIRONMENT, assert_one_line_error, run, run_inside

import bitinfer
from bitinfer.model import Model

GREEDY = ("generate", "--temperature", 0, "--max-tokens", 6)
SCHEMA = '{"type": "object", "properties": {"n": {"type": "boolean"}}, "required": ["n"],\
 "additionalProperties": false}'


@pytest.fixture(scope="module")
def model():
    with Model.load("tales-14m", num_threads=1) as loaded:
        yield loaded


def continued(model, prompt: str, **options) -> str:
    return model.generate(prompt, **{"temperature": 0, "max_tokens": 6, **options}).text + "\n"


def lines_of(done: subprocess.CompletedProcess) -> list[dict]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def batch(*arguments: object, lines: str) -> tuple[list[dict], subprocess.CompletedProcess]:
    done = run_inside(*GREEDY, "--jsonl", "-", *arguments, stdin=lines)
    return lines_of(done), done


def test_stdin_files_and_prompt_are_joined_in_this_order(model, tmp_path) -> None:
    first, second = tmp_path / "1.txt", tmp_path / "2.txt"
    first.write_text("The cat ran.\n")
    second.write_text("The dog ran.")
    done = run_inside(*GREEDY, "-f", first, "--file", second, "Then", stdin="They played.\n")
    assert done.stdout == continued(model, "They played.\nThe cat ran.\nThe dog ran.\nThen")
    assert run_inside(*GREEDY, "-f", first).stdout == continued(model, "The cat ran.")
    assert run_inside(*GREEDY, stdin="The cat").stdout == continued(model, "The cat")


def test_bytes_that_are_no_text_do_no_harm(tmp_path) -> None:
    file = tmp_path / "latin1.txt"
    file.write_bytes(b"caf\xe9 \x00\n")
    assert run_inside(*GREEDY, "-f", file).returncode == 0


def test_without_any_prompt_on_a_terminal_the_ways_are_named() -> None:
    with Terminal([sys.executable, "-m", "bitinfer", "generate"], ENVIRONMENT) as terminal:
        code, shown = terminal.finish()
    assert code == 2
    assert "expected PROMPT, --file or text on stdin" in " ".join(shown.split())


def test_chat_asks_through_the_template(model) -> None:
    messages = [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hi"}]
    expected = model.chat(messages, temperature=0, max_tokens=6).text + "\n"
    assert run_inside(*GREEDY, "--chat", "--system", "Be kind", "Hi").stdout == expected


def test_thinking_is_told_apart_from_the_answer(tmp_path) -> None:
    asked = (*GREEDY, "--chat", "--max-tokens", 40, "Hi")
    for opening, reply in (
        ("", "<think>so be it</think> yes"),
        ("<think>\n", "so be it</think>yes"),
    ):
        folder = shutil.copytree(bitinfer.default_model(), tmp_path / str(len(opening)))
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings["chat_template"] = "{{ messages[0]['content'] }}" + opening
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        forced = (*asked, "-m", folder, "--regex", reply)
        facts = json.loads(run_inside(*forced, "--json").stdout)
        assert (facts["thinking"], facts["text"]) == ("so be it", "yes")
        assert run_inside(*forced).stdout == f"{opening}{reply}\n"
        two = run_inside(*forced, "--completions", 2).stdout
        assert two == f"{opening}{reply}\n---\n{opening}{reply}\n"
    plain = json.loads(run_inside(*asked, "--json").stdout)
    assert "thinking" not in plain


def test_every_sampling_flag_reaches_the_model(model) -> None:
    options = {"temperature": 0.9, "top_k": 30, "repetition_penalty": 1.3, "seed": 5}
    options |= {"presence_penalty": 0.5, "logit_bias": {292: -100.0}}
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in options.items() if k != "logit_bias"]
    done = run_inside(*GREEDY, *flags, "--logit-bias", "292=-100", "Once")
    assert done.stdout == continued(model, "Once", **options)


def test_completions_are_parted_by_a_line(model) -> None:
    options = {"temperature": 0.8, "max_tokens": 6, "seed": 3}
    expected = [c.text for c in model.generate_n("Once", 3, **options)]
    done = run_inside(*GREEDY, "--temperature", 0.8, "--seed", 3, "-n", 3, "Once")
    assert done.stdout.removesuffix("\n").split("\n---\n") == expected


def test_json_holds_all_that_led_to_the_text(model) -> None:
    done = run_inside(*GREEDY, "--json", "--logprobs", 2, "Once upon a time")
    facts = json.loads(done.stdout)
    expected = model.generate("Once upon a time", temperature=0, max_tokens=6, logprobs=2)
    assert (facts["text"], facts["finish_reason"]) == (expected.text, "length")
    assert facts["usage"]["completion_tokens"] == 6
    assert facts["usage"]["prompt_tokens"] == expected.usage.prompt_tokens
    assert facts["model"]["name"] == "tales-14m"
    assert facts["settings"]["max_tokens"] == 6
    assert [t["token_id"] for t in facts["logprobs"]] == list(expected.token_ids)
    assert "".join(t["text"] for t in facts["logprobs"]) == expected.text
    assert [len(t["top"]) for t in facts["logprobs"]] == [2] * 6


def test_the_seed_in_json_gives_the_same_text_again() -> None:
    once = json.loads(run_inside("generate", "--max-tokens", 12, "--json", "Once").stdout)
    again = run_inside("generate", "--max-tokens", 12, "--seed", once["settings"]["seed"], "Once")
    assert again.stdout == once["text"] + "\n"


def test_json_of_several_completions_is_a_list() -> None:
    facts = json.loads(run_inside(*GREEDY, "--json", "-n", 2, "Once").stdout)
    assert [c["finish_reason"] for c in facts["completions"]] == ["length", "length"]
    assert "text" not in facts


def test_grammar_options_hold_the_text(tmp_path) -> None:
    assert run_inside(*GREEDY, "--regex", "[0-9]{3}", "One").stdout.strip().isdecimal()
    schema, grammar = tmp_path / "s.json", tmp_path / "g.lark"
    schema.write_text(SCHEMA)
    grammar.write_text('start: "yes" | "no"')
    for value in (SCHEMA, schema):
        done = run_inside("generate", "--seed", 1, "--json-schema", value, "x")
        assert isinstance(json.loads(done.stdout)["n"], bool)
    assert run_inside(*GREEDY, "--grammar", grammar, "x").stdout.strip() in ("yes", "no")
    assert_one_line_error(run_inside(*GREEDY, "--json-schema", "{", "x"), "json_schema: line 1")
    assert_one_line_error(run_inside(*GREEDY, "--grammar", tmp_path / "no", "x"), "no such file")


def test_each_line_of_a_batch_has_a_result_in_order(model, tmp_path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(
        '"Once upon a time"\n\n'
        '{"prompt": "The dog", "id": {"any": 1}, "max_tokens": 2}\n'
        '{"messages": [{"role": "user", "content": "Hi"}], "id": null, "stop": "!"}\n'
    )
    done = run_inside(*GREEDY, "--jsonl", file)
    found = lines_of(done)
    assert (done.returncode, done.stderr) == (0, "")
    assert [(f["line"], f.get("id", "none")) for f in found] == [
        *((1, "none"), (3, {"any": 1}), (4, None))
    ]
    hello = model.chat([{"role": "user", "content": "Hi"}], temperature=0, max_tokens=6, stop="!")
    assert [f["text"] + "\n" for f in found] == [
        continued(model, "Once upon a time"),
        continued(model, "The dog", max_tokens=2),
        hello.text + "\n",
    ]
    assert found[1]["settings"]["max_tokens"] == 2


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("nonsense", ["JSON string or object"]),
        ("[1]", ["JSON string or object", "[1]"]),
        ('{"prompt": "x", "id": NaN}', ["NaN"]),
        ("{}", ['"prompt" or "messages"']),
        ('{"prompt": 3}', ["prompt: expected a text, got 3"]),
        ('{"prompt": ""}', ["prompt", "at least 1 token"]),
        ('{"prompt": "x", "stop": 3}', ["stop", "3"]),
        ('{"prompt": "x", "stop": [""]}', ["stop"]),
        ('{"prompt": "x", "max_tokens": "3"}', ["max_tokens", "'3'"]),
        ('{"prompt": "x", "temprature": 1}', ["did you mean temperature?"]),
        ('{"prompt": "x", "temperature": 300}', ["from 0 to 100", "300"]),
        ('{"prompt": "x", "logits_processor": 3}', ["logits_processor"]),
        ('{"prompt": "x", "json_schema": {"type": "int"}}', ["json_schema", "int"]),
        ('{"messages": "Hi"}', ['messages: expected a list, got "Hi"']),
        ('{"messages": [{"role": "user"}]}', ["messages[0]", "content"]),
    ],
)
def test_a_bad_line_is_told_and_the_others_are_answered(line, parts) -> None:
    found, done = batch(lines=f'{line}\n"Once"\n')
    assert all(part in found[0]["error"] for part in parts), found[0]
    assert found[1]["text"]
    assert done.returncode == 1
    assert done.stderr == "error: 1 of 2 prompts failed: see their lines\n"


def test_options_of_a_line_take_the_place_of_the_flags() -> None:
    first = {"prompt": "x", "grammar": 'start: "no"', "stop": "abc"}
    lines = f'{json.dumps(first)}\n{{"prompt": "x", "stop": null}}\n'
    found, done = batch("--regex", "[0-9]{3}", "--stop", "q", lines=lines)
    assert done.returncode == 0, done
    assert (found[0]["text"], found[0]["settings"]["stop"]) == ("no", ["abc"])
    assert (found[1]["text"].isdecimal(), found[1]["settings"]["stop"]) == (True, [])


def test_a_line_can_bias_tokens(model) -> None:
    found, _ = batch(lines='{"prompt": "Once upon a time", "logit_bias": {"16": -100}}\n')
    expected = continued(model, "Once upon a time", logit_bias={16: -100.0})
    assert found[0]["text"] + "\n" == expected != continued(model, "Once upon a time")
    assert found[0]["settings"]["logit_bias"] == {"16": -100}


def test_the_flags_of_a_batch_hold_for_lines_without_their_own(model) -> None:
    found, _ = batch("--chat", lines='"Hi"\n')
    expected = model.chat([{"role": "user", "content": "Hi"}], temperature=0, max_tokens=6).text
    assert found[0]["text"] == expected


def test_a_result_comes_before_the_next_line_is_read() -> None:
    command = [sys.executable, "-m", "bitinfer", *map(str, GREEDY), "--jsonl", "-"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=ENVIRONMENT) as process:
        assert isinstance(process.stdin, io.TextIOBase)
        assert isinstance(process.stdout, io.TextIOBase)
        for number in (1, 2):
            process.stdin.write('"Once"\n')
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["line"] == number
        process.stdin.close()
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--logprobs", 3, "x"), "--json"),
        (("--logprobs", 101, "--json", "x"), "from 0 to 100"),
        (("--system", "x", "y"), "--chat"),
        (("--jsonl", "-", "x"), "PROMPT"),
        (("-n", 0, "x"), "--completions"),
    ],
)
def test_flags_that_do_not_fit_are_wrong_usage(arguments, part) -> None:
    assert_one_line_error(run_inside("generate", *arguments), part, code=2)


def test_a_missing_file_is_an_error(tmp_path) -> None:
    missing = tmp_path / "none"
    assert_one_line_error(run_inside("generate", "-f", missing), "no such file", str(missing))
    assert_one_line_error(run_inside("generate", "--jsonl", missing), "no such file", str(missing))
    assert_one_line_error(run_inside("generate", "-f", tmp_path), "directory")


SHELL = f"{sys.executable!r} -m bitinfer generate --max-tokens 60 --seed 1"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (f"{SHELL} Once 2>&1 >/dev/null <&-", 0),
        (f"{SHELL} Once 2>&1 >&-", 0),
        (f"{SHELL} Once </dev/null 2>&1 | head -c 1 >/dev/null", 0),
        (f"yes '\"Once\"' | {SHELL} --max-tokens 2 --jsonl - | head -n 2 >/dev/null", 0),
    ],
)
def test_closed_streams_are_silent(command, code) -> None:
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", code)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's full device")
def test_a_full_disk_is_one_line() -> None:
    command = f"{SHELL} Once </dev/null >/dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.stderr, done.returncode) == ("error: no space left on device\n", 1)


def test_a_closed_terminal_ends_it_silently(tmp_path) -> None:
    """As with nohup: the hang-up is ignored, then every write fails."""
    errors = tmp_path / "errors"
    script = f"trap '' HUP; {SHELL} --max-tokens 900 Once 2>{errors}; echo $? >{tmp_path / 'code'}"
    with Terminal(["bash", "-c", script], ENVIRONMENT) as terminal:
        terminal.wait_for(" ")
        terminal.hang_up()
    assert (errors.read_text(), (tmp_path / "code").read_text()) == ("", "1\n")


def test_ctrl_c_exits_with_130() -> None:
    command = [sys.executable, "-m", "bitinfer", "generate", "--max-tokens", "900", "Once"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert (process.returncode, errors.strip()) == (130, b"")


def test_the_terminal_is_not_steered(model, tmp_path) -> None:
    """The regex makes the model say an escape character."""
    arguments = ["generate", "--regex", "\\x1b\\[2J", "x"]
    command = [sys.executable, "-m", "bitinfer", *arguments]
    with Terminal(command, ENVIRONMENT) as terminal:
        terminal.type("\x04")
        assert terminal.finish() == (0, "[2J\n")
    assert run(*arguments).stdout == "\x1b[2J\n"


def test_the_locale_does_not_matter() -> None:
    done = run(*GREEDY, "Zoë 你好", LANG="C", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()

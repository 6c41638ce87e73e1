"""The settings file, and who beats whom: flag, variable, file, default."""

from __future__ import annotations

import click
import pytest

from bitinfer.cli import main
from bitinfer.cli.options import COMMON_SETTINGS, loading_options, sampling_options, setting
from bitinfer.cli.setting import Setting
from bitinfer.errors import ConfigError
from bitinfer.sampling import SETTINGS
from bitinfer.settings import default_path


@click.command()
@loading_options
@sampling_options
@setting("--polite/--rude", default=True)
@setting("--tag", multiple=True)
def probe(**options: object) -> None:
    """A command with settings."""


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A settings file in use."""
    path = tmp_path / "config.toml"
    path.touch()
    monkeypatch.setenv("BITINFER_CONFIG", str(path))
    return path


def given(name: str, *arguments: str) -> object:
    """The value of an option when ``bitinfer generate ARGUMENTS`` is run."""
    with main.make_context("bitinfer", ["generate"]) as root:
        return probe.make_context("generate", list(arguments), parent=root).params[name]


def refusal() -> str:
    with pytest.raises(ConfigError) as caught:
        given("seed")
    return str(caught.value)


def test_a_flag_beats_the_variable_beats_the_file_beats_the_default(file, monkeypatch) -> None:
    assert given("packing") == "auto"
    file.write_text('packing = "i2"')
    assert given("packing") == "i2"
    file.write_text('packing = "i2"\n[generate]\npacking = "t3"')
    assert given("packing") == "t3"
    monkeypatch.setenv("BITINFER_PACKING", "t5")
    assert given("packing") == "t5"
    assert given("packing", "--packing", "auto") == "auto"


def test_tables_of_other_commands_do_not_matter(file) -> None:
    file.write_text('[chat]\npacking = "t3"\nanything = 1\n[bench]\npacking = 3')
    assert given("packing") == "auto"


@pytest.mark.parametrize(
    ("name", "toml", "value"),
    [
        ("threads", "threads = 3", 3),
        ("temperature", "temperature = 1", 1),
        ("temperature", "temperature = 0.5", 0.5),
        ("max_tokens", "max-tokens = 7", 7),
        ("max_tokens", "max_tokens = 7", 7),
        ("seed", "seed = 18446744073709551615", 2**64 - 1),
        ("logit_bias", "logit-bias = { 15 = -2.5, 16 = -inf }", {15: -2.5, 16: float("-inf")}),
        ("logit_bias", "[logit-bias]\n15 = 1", {15: 1}),
        ("polite", "[generate]\npolite = false", False),
        ("tag", '[generate]\ntag = ["a", "b c"]', ("a", "b c")),
        ("model", "model = '~/m'", "~/m"),
        ("seed", "\N{ZERO WIDTH NO-BREAK SPACE}seed = 2\r\n", 2),  # as Windows' editors write it
    ],
)
def test_values_of_the_file_have_their_own_kinds(file, name, toml, value) -> None:
    file.write_text(toml, encoding="utf-8", newline="")
    assert given(name) == value


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("threads", "3", 3),
        ("seed", "5", 5),
        ("logit_bias", "15=-2.5", {15: -2.5}),
        ("polite", "no", False),
        ("temperature", "", None),
    ],
)
def test_variables_are_texts(file, monkeypatch, name, text, value) -> None:
    variable = "BITINFER_NUM_THREADS" if name == "threads" else f"BITINFER_{name.upper()}"
    monkeypatch.setenv(variable, text)
    assert given(name) == value


@pytest.mark.parametrize(
    ("toml", "line", "parts"),
    [
        ("threads = 4\ntemprature = 1", 2, ["temprature", "did you mean temperature?"]),
        ("\n[generate]\nzzz = 1", 3, ["generate.zzz", "config show"]),
        ("tempreture = [\n1,\n2]", 3, ["tempreture"]),
        ("polite = false", 1, ["polite: it belongs below a line [generate]"]),
        ("threads = true", 1, ["threads: expected a whole number, got true"]),
        ('threads = "4"', 1, ['threads: expected a whole number, got "4"']),
        ("threads = 1.5", 1, ["threads: expected a whole number, got 1.5"]),
        ("# a\nthreads = 999", 2, ["threads: expected a whole number from 1 to 256, got 999"]),
        ("temperature = 300", 1, ["temperature: expected a number from 0 to 100, got 300"]),
        ("temperature = nan", 1, ["temperature", "nan"]),
        ('temperature = "hot"', 1, ['temperature: expected a number, got "hot"']),
        ("top-k = 1.5", 1, ["top-k: expected a whole number", "got 1.5"]),
        ("model = 3", 1, ["model: expected a text in quotes, got 3"]),
        ('packing = "z9"', 1, ["packing", "z9", "t5"]),
        ("[generate]\npolite = 1", 2, ["polite: expected true or false, got 1"]),
        ('[generate]\ntag = "a"', 2, ['tag: expected a list of values, got "a"']),
        ("[generate]\ntag = [1]", 2, ["tag: expected a text in quotes, got 1"]),
        ("logit-bias = { x = 1 }", 1, ["logit-bias", "'x'"]),
        ("logit-bias = 3", 1, ["logit-bias: expected a table of token id = number, got 3"]),
        ("seed = 1\nseed = 2", 2, ["overwrite", "'seed = 2'"]),
        ("ok = 1\ntemperature =", 2, ["'temperature ='"]),
        ("[generate\n", 1, ["'[generate'"]),
        ("a = [1,\n2", 2, ["'2'"]),
    ],
)
def test_a_broken_file_names_line_and_key(file, toml, line, parts) -> None:
    file.write_text(toml)
    message = refusal()
    assert message.startswith(f"{file} line {line}: ")
    assert all(part in message for part in parts), message
    assert "\n" not in message


def test_a_file_that_is_not_utf8_names_the_line(file) -> None:
    file.write_bytes(b"seed = 1\nmodel = 'caf\xe9'\n")
    assert refusal() == f"{file} line 2: expected UTF-8, got another encoding"


def test_a_variable_of_the_wrong_kind_is_named(file, monkeypatch) -> None:
    monkeypatch.setenv("BITINFER_TEMPERATURE", "hot")
    assert refusal() == "BITINFER_TEMPERATURE: expected a number from 0 to 100, got 'hot'"
    monkeypatch.delenv("BITINFER_TEMPERATURE")
    monkeypatch.setenv("BITINFER_NUM_THREADS", "999")
    assert "BITINFER_NUM_THREADS: expected a whole number from 1 to 256, got 999" in refusal()


def test_a_named_file_must_be_there(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("BITINFER_CONFIG", str(tmp_path / "none.toml"))
    assert refusal() == f"{tmp_path / 'none.toml'}: settings file not found"
    monkeypatch.setenv("BITINFER_CONFIG", str(tmp_path))
    assert "cannot be read" in refusal()


def test_the_usual_file_need_not_be_there(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("BITINFER_CONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert default_path().is_relative_to(tmp_path)
    assert given("seed") is None
    default_path().parent.mkdir(parents=True)
    default_path().write_text("seed = 4")
    assert given("seed") == 4


def test_help_works_with_a_broken_file(file) -> None:
    file.write_text("][")
    assert refusal()
    with pytest.raises(click.exceptions.Exit) as caught:
        given("seed", "--help")
    assert caught.value.exit_code == 0


def test_every_sampling_parameter_is_a_setting_with_its_help() -> None:
    options = {option.name: option for option in probe.params if isinstance(option, Setting)}
    for name, about in SETTINGS.items():
        assert options[name].help.startswith(about["help"])
        assert options[name].envvar == f"BITINFER_{name.upper()}"
        assert name in COMMON_SETTINGS


def test_every_setting_has_a_variable_of_its_own() -> None:
    variables = [option.envvar for option in probe.params if isinstance(option, Setting)]
    assert len(variables) == len(set(variables))

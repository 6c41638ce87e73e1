"""`bitinfer train` without torch: which value holds, what is shown meanwhile, and the curves."""

import os
import sys
import xml.etree.ElementTree as ET
from dataclasses import fields

import click
import pytest
from click.testing import CliRunner
from terminal import Terminal

from bitinfer.bench import plot_style
from bitinfer.cli import main
from bitinfer.cli.train import _config, train
from bitinfer.cli.train_progress import Lines, duration
from bitinfer.errors import ConfigError
from bitinfer.train.config import TrainConfig
from bitinfer.train.log import StepRecord
from bitinfer.train.run_folder import RunFolder


def record(step: int, **validation: float) -> StepRecord:
    return StepRecord(step, step * 100, 3 / step, 0.5, 1e-3, 0.1, 90.0, validation)


def parsed(*arguments: str) -> TrainConfig:
    """The config of a command line."""
    values = train.make_context("train", list(arguments)).params
    for name in ("plots", "theme"):
        values.pop(name)
    out, recipe, resume = (values.pop(name) for name in ("out", "recipe", "resume"))
    return _config(out, recipe, resume, values)


def test_each_setting_has_an_option_and_a_help():
    named = {name for option in train.params for name in [option.name]}
    assert {field.name for field in fields(TrainConfig)} <= named
    assert all(option.help for option in train.params if isinstance(option, click.Option))


def test_options_go_over_the_recipe_and_the_recipe_over_the_defaults(tmp_path):
    (tmp_path / "r.toml").write_text(
        "steps = 7\nbatch_size = 2\nsub_norm = false\n[shape]\nhidden_size = 64\nhead_dim = 8\n"
    )
    shape = ["--shape", "hidden_size=32", "--shape", "hidden_act=silu"]
    config = parsed("a.txt", "b.txt:3", "run", "--recipe", str(tmp_path / "r.toml"), "--steps", "9")
    assert (config.data, config.steps, config.batch_size) == (("a.txt", "b.txt:3"), 9, 2)
    assert config.sub_norm is False
    assert config.context_length == TrainConfig().context_length
    config = parsed("a.txt", "run", "--recipe", str(tmp_path / "r.toml"), *shape, "--sub-norm")
    assert config.shape == {"hidden_size": 32, "head_dim": 8, "hidden_act": "silu"}
    assert config.sub_norm is True


def test_a_shape_may_come_from_a_models_config(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"architectures": ["X"], "model_type": "llama", "hidden_size": 48, "dtype": "bfloat16"}'
    )
    shape = ["--shape", str(tmp_path / "config.json"), "--shape", "hidden_size=24"]
    assert parsed("a.txt", "run", *shape).shape == {"model_type": "llama", "hidden_size": 24}


def test_a_resumed_run_has_its_own_settings_under_the_options(tmp_path):
    RunFolder(tmp_path / "run").begin(TrainConfig(data=("a.txt",), steps=3), resume=False)
    config = parsed(str(tmp_path / "run"), "--resume", "--save-every", "5")
    assert config == TrainConfig(data=("a.txt",), steps=3, save_every=5)


def told(*arguments: str) -> str:
    """The one line of an error."""
    done = CliRunner().invoke(main, ["train", *arguments])
    assert done.exit_code == 1, done.output
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_bad_setting_is_told_in_one_line(tmp_path):
    (tmp_path / "r.toml").write_text("stepps = 7\n")
    recipe = str(tmp_path / "r.toml")
    assert f"error: {recipe}: stepps: no such setting" in told("a", "run", "--recipe", recipe)
    assert told("a", "run", "--steps", "0").startswith("error: steps: expected a whole number from")
    assert "expected the folder of a run" in told(str(tmp_path / "none"), "--resume")
    with pytest.raises(ConfigError, match=r"none\.json in .*: file not found"):
        parsed("a", "run", "--shape", str(tmp_path / "none.json"))


def test_without_torch_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("bitinfer.train.")]:
        monkeypatch.delitem(sys.modules, name)
    assert "pip install 'bitinfer[train]'" in told("a.txt", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_picture_that_cannot_be_drawn_is_refused_before_the_run(tmp_path):
    done = CliRunner().invoke(main, ["train", "a.txt", str(tmp_path / "run"), "--plot", "a.pdf"])
    assert done.exit_code == 2
    assert "expected a name that ends with .png or .svg, got 'a.pdf'" in done.stderr
    assert not (tmp_path / "run").exists()


def test_plain_lines_come_now_and_then_with_the_time_left():
    now, lines = [0.0], []
    report = Lines(1000, lines.append, lambda: now[0])
    for step in range(1, 31):
        now[0] += 1
        report(record(step, **({"val.txt": 2.0} if step == 15 else {})))
    assert lines == [
        "training: 1,000 steps",
        "step 10 of 1,000: loss 0.300, 100 tokens/s, 16:30 left",
        "step 15: val.txt: loss 2.0000, perplexity 7.39",
        "step 20 of 1,000: loss 0.150, 100 tokens/s, 16:20 left",
        "step 30 of 1,000: loss 0.100, 100 tokens/s, 16:10 left",
    ]


def test_the_time_left_follows_the_speed_of_the_last_steps():
    now, lines = [0.0], []
    report = Lines(200, lines.append, lambda: now[0])
    for step in range(1, 151):
        now[0] += 1 if step < 80 else 0.5
        report(record(step))
    assert lines[-1] == ("step 141 of 200: loss 0.021, 200 tokens/s, 0:30 left")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (61, "1:01"), (3599.6, "1:00:00"), (7384, "2:03:04")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


SHOWN = """
import time
from bitinfer.cli.train_progress import train_progress
from bitinfer.train.config import TrainConfig
from bitinfer.train.log import StepRecord
with train_progress(TrainConfig(steps=3000)) as report:
    for step in range(998, 1001):
        report(StepRecord(step, step * 8192, 2.5, 0.5, 1e-3, 0.1, 8000.0, {}))
    validation = {"val.txt": 2.25, "[red]val[/red].txt": 1.0}
    report(StepRecord(1001, 8200192, 2.5, 0.5, 1e-3, 0.1, 8000.0, validation))
    time.sleep(0.2)
"""


@pytest.mark.parametrize("no_colour", [{}, {"NO_COLOR": "1"}])
def test_a_bar_fits_a_terminal_of_80_columns(no_colour):
    environment = {**os.environ, **no_colour}
    with Terminal([sys.executable, "-c", SHOWN], environment) as terminal:
        code, shown = terminal.finish()
    assert code == 0, shown
    assert "step 1001: val.txt: loss 2.2500, perplexity 9.49" in shown.replace("1,001", "1001")
    assert "[red]val[/red].txt" in shown
    assert "/3,000" in shown
    assert "loss 2.500" in shown
    if no_colour:
        assert "\x1b[3" not in shown


def test_a_run_not_of_the_first_process_is_silent():
    environment = {**os.environ, "RANK": "1"}
    with Terminal([sys.executable, "-c", SHOWN], environment) as terminal:
        assert terminal.finish() == (0, "")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_curves_name_their_files_and_units(theme, tmp_path):
    from bitinfer.train.plot import draw

    records = [
        record(step, **({"val.txt": 3 / step} if step % 10 == 0 else {})) for step in range(1, 99)
    ]
    draw(records, tmp_path / "run.svg", theme=theme)
    drawn = (tmp_path / "run.svg").read_text()
    texts = [e.text for e in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
    for text in ("training", "val.txt", "tokens", "loss per token (nats)", "learning rate"):
        assert text in texts
    assert plot_style.INK[theme][0] in drawn


def test_a_single_step_can_be_drawn(tmp_path):
    from bitinfer.train.plot import draw

    draw([record(1)], tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")

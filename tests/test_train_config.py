"""A run's config and schedule: bounds, kinds, what binds a resumed run; formulas by hand."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from bitinfer.errors import ConfigError
from bitinfer.train.config import FREE_FIELDS, TrainConfig, check_same, read_toml
from bitinfer.train.schedule import learning_rate, weight_decay

CONFIG = TrainConfig(
    steps=100,
    warmup_steps=10,
    learning_rate=1.0,
    learning_rate_2=0.6,
    weight_decay=0.1,
    weight_decay_2=0.0,
)


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.1),  # a tenth of the warm-up
        (4, 0.5 * 0.96),
        (9, 0.91),  # warm
        (10, 0.9),
        (49, 0.51),
        (50, 0.6 * 0.5),  # the second peak's line
        (75, 0.6 * 0.25),
        (99, 0.6 * 0.01),
    ],
)
def test_learning_rate_is_its_formula(step, rate):
    assert learning_rate(CONFIG, step) == pytest.approx(rate, rel=1e-12)


def test_weight_decay_ends_with_stage_one():
    assert [weight_decay(CONFIG, step) for step in (0, 49, 50, 99)] == [0.1, 0.1, 0.0, 0.0]


def test_stage_two_begins_where_it_is_said_or_never():
    early, never = replace(CONFIG, stage_2_from=0.2), replace(CONFIG, stage_2_from=1)
    assert learning_rate(early, 19) == pytest.approx(0.81)
    assert learning_rate(early, 20) == pytest.approx(0.6 * 0.8)
    assert learning_rate(never, 99) == pytest.approx(0.01)
    assert learning_rate(replace(CONFIG, warmup_steps=0), 0) == 1.0


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"steps": 0}, "steps: expected a whole number from 1 to 2.14748e+09, got 0"),
        ({"steps": 1.5}, "steps: expected a whole number, got 1.5"),
        ({"steps": True}, "steps: expected a whole number, got true"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a number from 0 to 10, got NaN"),
        ({"ternary_from": 1.1}, "ternary_from: expected a number from 0 to 1, got 1.1"),
        ({"linear": "int4"}, 'linear: expected bitnet, binary, full, got "int4"'),
        ({"data": "a.txt"}, 'data: expected a list of texts, got "a.txt"'),
        ({"data": [3]}, "data: expected a list of texts, got [3]"),
        ({"shape": 3}, "shape: expected a table, got 3"),
        ({"sub_norm": 1}, "sub_norm: expected true or false, got 1"),
    ],
)
def test_a_bad_value_is_told_with_what_is_expected(value, told):
    with pytest.raises(ConfigError) as error:
        TrainConfig.from_mapping(value, "recipe.toml")
    assert str(error.value) == f"recipe.toml: {told}"


def test_an_unknown_key_is_told_with_those_that_are():
    with pytest.raises(ConfigError, match=r"lr: no such setting: expected data, .*learning_rate"):
        TrainConfig.from_mapping({"lr": 1}, "recipe.toml")


def test_a_config_is_read_back_from_its_json():
    config = replace(CONFIG, data=("a.txt:2",), shape={"hidden_size": 64}, compile=False)
    assert TrainConfig.from_mapping(json.loads(config.to_json()), "run.json") == config


def test_a_resumed_run_has_the_same_config_but_for_what_changes_nothing():
    check_same(CONFIG, replace(CONFIG, compile=True, save_every=7, validate_every=9), Path("run"))
    with pytest.raises(ConfigError) as error:
        check_same(CONFIG, replace(CONFIG, learning_rate=2.0), Path("run"))
    assert str(error.value) == (
        "learning_rate: expected 1.0 as the run in run began, got 2.0: resume without it, or begin"
        " a new run in another folder"
    )
    assert set(FREE_FIELDS) < {entry.name for entry in fields(TrainConfig)}


def test_paths_of_a_recipe_are_relative_to_it(tmp_path):
    (tmp_path / "r.toml").write_text(
        'data = ["a.txt:2", "/b.txt"]\ntokenizer = "t"\nsteps = 5\n[shape]\nhidden_size = 32\n'
    )
    config = TrainConfig.from_mapping(read_toml(tmp_path / "r.toml"), "r.toml")
    assert config.data == (f"{tmp_path}/a.txt:2", "/b.txt")
    assert config.tokenizer == f"{tmp_path}/t"
    assert (config.steps, config.shape) == (5, {"hidden_size": 32})


@pytest.mark.parametrize("text", ["steps = ", 'a = "\xff'])
def test_a_recipe_that_is_not_toml_is_told(text, tmp_path):
    (tmp_path / "r.toml").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"r\.toml: expected TOML, got text that is not"):
        read_toml(tmp_path / "r.toml")
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        read_toml(tmp_path / "none.toml")


def test_the_recipe_of_the_page_is_one(tmp_path):
    page = Path(__file__).resolve().parent.parent / "docs" / "training.md"
    (block,) = re.findall(r"^```toml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "r.toml").write_text(block)
    config = TrainConfig.from_mapping(read_toml(tmp_path / "r.toml"), "r.toml")
    assert config.shape == {"hidden_size": 256, "num_hidden_layers": 6}


def test_the_page_names_what_may_change():
    page = Path(__file__).resolve().parent.parent / "docs" / "training.md"
    sentence = re.search(r"same settings; only (.*?)may\s+change", page.read_text(), re.DOTALL)
    assert set(re.findall(r"`(\w+)`", sentence[1])) == set(FREE_FIELDS)

"""``bitinfer distill`` before any training: what it refuses, and what config its options make."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bitinfer.cli import distill as command
from bitinfer.errors import ConfigError
from bitinfer.train.distill_config import DistillConfig


@pytest.fixture
def started(monkeypatch):
    """What would be run: (config, out, resume)."""
    calls = []
    monkeypatch.setattr(command, "_run", lambda *given: calls.append(given))
    return calls


def call(*arguments):
    return CliRunner().invoke(command.distill, [str(a) for a in arguments])


def test_options_go_to_the_stage_that_they_are_of(started):
    done = call(
        *("teacher", "task.jsonl", "out", "--pretrain", "a.txt", "--pretrain", "b.txt"),
        *("--pretrain-steps", 7, "--learning-rate", 0.5, "--batch-size", 3, "--no-sub-norm"),
        *("--temperature", 2, "--relation-layer", 4, "--logits-weight", 0, "--form", "master"),
    )
    assert done.exit_code == 0, done.output
    ((config, out, resume),) = started
    assert (config.teacher, out, resume) == ("teacher", Path("out"), False)
    assert config.finetune.data == ("task.jsonl",)
    assert config.pretrain.data == ("a.txt", "b.txt")
    assert (config.pretrain.steps, config.finetune.steps) == (7, 500)
    assert (config.pretrain.learning_rate, config.finetune.learning_rate) == (1e-3, 0.5)
    assert config.pretrain.batch_size == config.finetune.batch_size == 3
    assert config.finetune.sub_norm is False
    assert config.finetune.form == "master"
    weights = config.weights
    assert (weights.temperature, weights.layer, weights.logits, weights.relation) == (2, 4, 0, 1)


def test_a_kept_config_is_what_is_resumed(started, tmp_path):
    call("teacher", "text.txt", tmp_path / "out", "--pretrain", "a.txt", "--relation-heads", 3)
    (tmp_path / "distill.json").write_text(started[0][0].to_json())
    assert call(tmp_path, "--resume").exit_code == 0
    assert started[1] == (started[0][0], tmp_path, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("teacher", "data"), "expected TEACHER DATA OUT, got 2 of them"),
        (("t", "d", "o", "--pretrain-steps", 5), "--pretrain-steps: needs --pretrain FILE"),
        (("t", "d", "o", "--student", "s", "--sub-norm"), "--sub-norm: expected none with"),
        (("o", "--resume", "--steps", 5), "--resume: expected OUT alone"),
        (("t", "d", "o", "--steps", 0), "steps: expected a whole number from 1"),
        (("t", "d", "o", "--temperature", 0), "temperature: expected a number 0.001 or more"),
    ],
)
def test_what_has_no_meaning_is_refused(started, arguments, message):
    done = call(*arguments)
    assert done.exit_code != 0
    assert message in (
        done.output if isinstance(done.exception, SystemExit) else str(done.exception)
    )
    assert not started


def test_a_damaged_config_is_refused(tmp_path):
    path = tmp_path / "distill.json"
    for values in ({}, {"teacher": "t", "weights": {"a": 1}, "finetune": {}, "pretrain": None}):
        path.write_text(json.dumps(values))
        with pytest.raises(ConfigError, match=r"distill\.json: expected a distillation's config"):
            DistillConfig.from_file(path)

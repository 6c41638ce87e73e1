"""Training runs: what a crash, a full disk or NaN leaves; the same losses however computed."""

import json
import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from bitinfer.engine import Engine
from bitinfer.errors import ConfigError, TokenizerError, TrainingError
from bitinfer.model import Model
from bitinfer.train import TrainConfig, TrainResult, train
from bitinfer.train.checkpoint import read_checkpoint
from bitinfer.train.data import IGNORED, TokenFile, validation_rows
from bitinfer.train.log import read_log
from bitinfer.train.run import next_token_loss

TEXT = "".join(
    f"<s>Once upon a time there were {n} cats. They had {n + 1} hats, {n + 2} mats and a rat.</s>\n"
    for n in range(40)
)
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_text(TEXT)
    (folder / "held.txt").write_text(TEXT[-600:-300])
    return TrainConfig(
        data=(str(folder / "text.txt"),),
        validation=(str(folder / "held.txt"),),
        vocab_size=290,
        shape=SHAPE,
        context_length=24,
        steps=12,
        batch_size=4,
        warmup_steps=3,
        learning_rate=1e-2,
        learning_rate_2=6e-3,
        precision="fp32",
        save_every=4,
        validate_every=6,
    )


@pytest.fixture(scope="module")
def unbroken(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(config, tmp_path_factory.mktemp("run") / "run")


def same_weights(one: TrainResult, other: TrainResult) -> bool:
    files = [result.folder / "model.safetensors" for result in (one, other)]
    return files[0].read_bytes() == files[1].read_bytes()


def run_python(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


KILLED = """
import json, os, signal, sys
from pathlib import Path
import torch
from bitinfer.train import TrainConfig, train
torch.set_num_threads(1)
config = TrainConfig.from_mapping(json.loads(Path(sys.argv[1], "config.json").read_text()), "")
def report(record):
    if record.step == 10:
        os.kill(os.getpid(), signal.SIGKILL)
train(config, Path(sys.argv[1], "run"), report=report)
"""


def test_a_run_resumed_after_kill_9_has_the_losses_of_an_unbroken_one(config, unbroken, tmp_path):
    (tmp_path / "config.json").write_text(config.to_json())
    killed = run_python("-c", KILLED, tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert read_checkpoint(tmp_path / "run" / "checkpoint.pt").step == 8
    assert len(read_log(tmp_path / "run")) == 10
    resumed = train(config, tmp_path / "run", resume=True)
    assert resumed.losses == unbroken.losses
    assert [r.validation for r in resumed.records] == [r.validation for r in unbroken.records]
    assert [r.step for r in read_log(tmp_path / "run")] == list(range(1, 13))
    assert same_weights(resumed, unbroken)


def test_a_run_killed_before_its_first_checkpoint_begins_anew(config, unbroken, tmp_path):
    def stop(record):
        if record.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", report=stop)
    assert train(config, tmp_path / "run", resume=True).losses == unbroken.losses


RANK = """
import json, sys
from pathlib import Path
import torch
from bitinfer.train import TrainConfig, train
torch.set_num_threads(1)
folder = Path(sys.argv[1])
config = TrainConfig.from_mapping(json.loads((folder / "config.json").read_text()), "")
train(config, folder / "run")
"""


def test_two_processes_are_one_process(config, unbroken, tmp_path):
    """Bits equal those of one process that computes the same pieces.

    Halving is exact, so g1 / 2 + g2 / 2 is the same whether one process accumulates it or two
    average it. Against whole batches only the order of fp32 sums differs: 2^-24 per addition of
    about 100 tokens, so 1e-5 of a loss; then codes of activations flip, so only the first step
    is compared that closely.
    """
    (tmp_path / "config.json").write_text(config.to_json())
    (tmp_path / "rank.py").write_text(RANK)
    done = run_python(
        *("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"),
        *(tmp_path / "rank.py", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    both = [record.loss for record in read_log(tmp_path / "run")]
    pieces = train(replace(config, gradient_accumulation_steps=2), tmp_path / "pieces")
    assert both == pieces.losses
    assert [r.grad_norm for r in read_log(tmp_path / "run")] == [
        r.grad_norm for r in pieces.records
    ]
    measured = [r.validation for r in read_log(tmp_path / "run") if r.validation]
    assert measured == [pytest.approx(r.validation) for r in pieces.records if r.validation]
    assert both[0] == pytest.approx(unbroken.losses[0], rel=1e-5)
    assert both == pytest.approx(unbroken.losses, rel=0.02)
    with Model.load(tmp_path / "run" / "model") as model:
        assert model.generate("Once", max_tokens=3).token_ids


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(config, unbroken, tmp_path):
    calls = []

    def diverging(model, tokens):
        calls.append(len(tokens))
        return next_token_loss(model, tokens) * (math.nan if len(calls) == 7 else 1)

    with pytest.raises(TrainingError) as error:
        train(config, tmp_path / "run", loss_fn=diverging)
    assert str(error.value) == (
        "step 7: the loss is nan, the norm of its gradients nan: the checkpoint of step 4 is kept"
        f" in {tmp_path / 'run'}; begin a new run with a lower learning_rate"
    )
    assert [r.step for r in read_log(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]
    assert train(config, tmp_path / "run", resume=True).losses == unbroken.losses


@pytest.fixture
def full_disk() -> Iterator[object]:
    """A function after which no file may become larger than 60 kB, which stands for a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill(size: int = 60_000) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield fill
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_is_told_and_loses_nothing(config, unbroken, full_disk, tmp_path):
    run = tmp_path / "run"

    def report(record):
        if record.step == 5:
            full_disk()

    with pytest.raises(TrainingError) as error:
        train(config, run, report=report)
    full_disk(resource.RLIM_INFINITY)
    assert str(error.value) == (
        f"{run}/checkpoint.pt: the checkpoint of step 8 cannot be written, the one before it is"
        " kept: File too large: make room, then resume"
    )
    assert read_checkpoint(run / "checkpoint.pt").step == 4
    assert {path.name for path in run.iterdir()} == {
        *(".lock", "checkpoint.pt", "log.csv", "log.jsonl", "run.json", "tokenizer", "tokens")
    }
    assert train(config, run, resume=True).losses == unbroken.losses


def test_a_log_that_does_not_fit_on_the_disk_is_told(config, full_disk, tmp_path):
    def report(record):
        full_disk(300)

    with pytest.raises(TrainingError, match=r"log\.jsonl: cannot be written: (File too|No sp)"):
        train(config, tmp_path / "run", report=report)


def test_a_damaged_checkpoint_is_told(config, tmp_path):
    train(replace(config, steps=1), tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.pt"
    for content in (path.read_bytes()[:-100], b"", b"\x80\x02c"):
        path.write_bytes(content)
        with pytest.raises(TrainingError, match=r"\.pt: expected a checkpoint, got a dam"):
            train(replace(config, steps=1), tmp_path / "run", resume=True)


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(config, tmp_path):
    small = replace(config, shape={**SHAPE, "vocab_size": 289})
    with pytest.raises(TokenizerError, match="expected token ids below 289"):
        train(small, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data": ()}, "data: expected a text file or more to train on"),
        ({"gradient_accumulation_steps": 3}, "batch_size: expected a multiple of processes"),
        ({"shape": {**SHAPE, "num_attention_heads": "two"}}, "shape: expected one that trans"),
        (
            {"shape": {**SHAPE, "head_dim": 8}},
            "shape: expected one that transformers runs, got: The",
        ),
        ({"sub_norm": False}, "sub_norm: expected true"),
        ({"sub_norm": False, "linear": "full"}, "sub_norm: expected true"),
        ({"threshold": 0.7, "form": "master"}, "form: expected packed for a threshold of 0.7"),
        ({"num_groups": 2, "ternary_from": 0.5}, "num_groups: expected 1 of ternary weights, got"),
        (
            {"shape": {**SHAPE, "model_type": "llama"}, "ternary_from": 0.5},
            "ternary_from: expected 0 where sub_norm adds norms to a llama, got 0.5",
        ),
    ],
)
def test_what_does_not_go_together_is_told_before_the_first_step(change, told, config, tmp_path):
    with pytest.raises(ConfigError) as error:
        train(replace(config, **change), tmp_path / "run")
    assert str(error.value).startswith(told)
    assert not read_log(tmp_path / "run")


def mean_loss(folder: Path, tokens: list[int], context: int) -> float:
    """By bitinfer's engine, in NumPy: each token but the first, in rows as the run has them."""
    engine = Engine.load(folder, kv_cache="f32", head="source", num_threads=1)
    found = []
    for begin in range(0, len(tokens) - 1, context):
        row = tokens[begin : begin + context + 1]
        for at in range(1, len(row)):
            logits = engine.forward([row[:at]], [engine.new_cache(at)])[0].astype(np.float64)
            top = logits.max()
            found.append(top + np.log(np.exp(logits - top).sum()) - logits[row[at]])
    return float(np.mean(found))


@pytest.mark.parametrize("linear", ["bitnet", "binary"])
def test_the_model_loads_in_bitinfer_and_has_the_validation_loss_of_the_log(
    linear, config, tmp_path
):
    """Engine and torch differ by codes that flip in rounding: far below 1 % of a mean loss."""
    run = train(replace(config, linear=linear, steps=30), tmp_path / "run")
    assert run.losses[-1] < 0.7 * run.losses[0]
    held = TokenFile.open(next((tmp_path / "run" / "tokens").glob("validation-*.u16")))
    expected = run.records[-1].validation["held.txt"]
    assert mean_loss(run.folder, held.tokens.tolist(), 24) == pytest.approx(expected, rel=0.01)
    with Model.load(run.folder) as model:
        assert len(model.generate("Once upon", max_tokens=8, temperature=0).token_ids) == 8


def test_nothing_is_dropped_out_when_it_is_measured(config, tmp_path):
    """Equal but for the order of sums; with half of the attention dropped out far from it."""
    run = train(replace(config, shape={**SHAPE, "attention_dropout": 0.5}), tmp_path / "run")
    held = TokenFile.open(next((tmp_path / "run" / "tokens").glob("validation-*.u16")))
    with torch.no_grad():
        expected = next_token_loss(run.model, torch.from_numpy(validation_rows(held, 24)))
    logged = run.records[-1].validation["held.txt"]
    assert logged == pytest.approx(float(expected), rel=1e-5)


def test_layers_turn_ternary_when_the_config_says_so(config, unbroken, tmp_path):
    full = train(replace(config, linear="full"), tmp_path / "full")
    late = train(replace(config, ternary_from=0.5), tmp_path / "late")
    after = train(replace(config, ternary_from=1), tmp_path / "after")
    assert late.losses[:6] == full.losses[:6]
    assert late.losses[6] != full.losses[6]
    assert after.losses == full.losses != unbroken.losses
    last = [run.records[-1].validation for run in (full, after)]
    assert last[0] != last[1]  # what was made ternary after training is measured as such
    assert "quantization_config" not in json.loads((full.folder / "config.json").read_text())
    loaded = AutoModelForCausalLM.from_pretrained(
        full.folder, dtype=torch.float32, attn_implementation="eager"
    )
    rows = torch.arange(24)[None]
    with torch.no_grad():
        assert torch.equal(loaded(rows).logits, full.model(rows).logits)


def test_a_run_goes_on_from_the_masters_of_another(config, unbroken, tmp_path):
    first = train(replace(config, form="master"), tmp_path / "first")
    start = str(first.folder)
    tuned = train(replace(config, start=start, steps=2, seed=1), tmp_path / "tuned")
    assert tuned.losses[0] < 0.8 * unbroken.losses[0]


def test_own_rows_and_losses_take_the_place_of_the_data(config, unbroken, tmp_path):
    class Padded:
        """Rows of which only the first tokens are to be learned."""

        def rows(self, first: int, count: int):
            rows = np.full((count, 9), IGNORED)
            rows[:, :4] = 5 + np.arange(first, first + count)[:, None] % 7
            return rows

    seen = []

    def loss(model, tokens):
        seen.extend(tokens[:, 0].tolist())
        return next_token_loss(model, tokens)

    tokenizer = str(unbroken.folder)
    given = replace(config, data=(), tokenizer=tokenizer, steps=60, validation=())
    run = train(given, tmp_path / "run", rows=Padded(), loss_fn=loss)
    assert seen == [5 + i % 7 for i in range(240)]
    assert run.losses[-1] < 0.5


def test_rounding_of_bf16_does_not_keep_a_run_from_learning(config, unbroken, tmp_path):
    run = train(replace(config, precision="bf16", compile=True), tmp_path / "run")
    assert run.losses == pytest.approx(unbroken.losses, rel=0.1)
    assert all(p.dtype == torch.float32 for p in run.model.parameters())

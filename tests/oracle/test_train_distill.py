"""BitDistill as a whole on tiny models: what each stage does, and what comes out of it."""

import copy
import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from comparisons import assert_like_fp32, distances
from conftest import comparable_engine
from gguf_files import gguf_bytes
from gguf_models import config_keys, embedded_tokenizer, floats, gguf_name, permuted, tokenizer_keys
from safetensors.torch import load_file, save_file
from test_train_distill_loss import make_model
from transformers_oracle import Oracle

from bitinfer.cli.distill import distill as command
from bitinfer.errors import BitinferError, ConfigError, TrainingError
from bitinfer.tokenizer import Tokenizer
from bitinfer.train.config import TrainConfig
from bitinfer.train.data import IGNORED
from bitinfer.train.distill_config import DistillConfig, LossWeights
from bitinfer.train.distill_loss import logits_loss
from bitinfer.train.distillation import distill
from bitinfer.train.loop import train
from bitinfer.train.new_tokenizer import train_tokenizer
from bitinfer.train.tasks import TaskRows, read_tasks
from bitinfer.train.teacher import load_teacher

VOCAB = 300
SMALL = {"vocab_size": VOCAB, "num_hidden_layers": 2}
SUBJECTS = ("The cat", "A dog", "My old aunt", "The king", "A small bird")
VERBS = ("sees", "likes", "finds", "carries", "sings to")
OBJECTS = ("the moon", "a red ball", "the river", "an apple", "the sleepy child")


def sentences(count, seed):
    rng = random.Random(seed)
    parts = (SUBJECTS, VERBS, OBJECTS)
    return [" ".join(rng.choice(part) for part in parts) + "." for _ in range(count)]


def write_teacher(folder, tokenizer, kind="llama", seed=0):
    """A random model with weights so large that all of its layers matter."""
    model = make_model(kind, seed, **SMALL, tie_word_embeddings=True, initializer_range=0.2)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tokenizer / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Texts, a task of 40 examples, a tokenizer, teachers."""
    folder = tmp_path_factory.mktemp("distill")
    for name, count in (("text", 600), ("held_out", 120)):
        lines = [f"<s>{line}</s>" for line in sentences(count, seed=count)]
        (folder / f"{name}.txt").write_text("\n".join(lines))
    examples = [{"text": line, "label": line.split()[1]} for line in sentences(40, seed=1)]
    (folder / "task.jsonl").write_text("\n".join(map(json.dumps, examples)))
    train_tokenizer([folder / "text.txt"], VOCAB, folder / "tokenizer")
    for kind in ("llama", "qwen3"):
        write_teacher(folder / kind, folder / "tokenizer", kind)
    return folder


def stage(data, steps=8, **settings):
    known = {"batch_size": 4, "context_length": 32, "learning_rate": 1e-3, "warmup_steps": 0}
    known |= {"precision": "fp32", "stage_2_from": 1.0, "save_every": 100, "form": "master"}
    return TrainConfig(data=(str(data),), steps=steps, **known | settings)


def config_of(place, data="text.txt", kind="llama", weights=None, **settings):
    return DistillConfig(
        teacher=str(place / kind),
        finetune=stage(place / data, **settings),
        weights=weights or LossWeights(),
    )


def held_out(place):
    tokenizer = load_teacher(place / "llama").tokenizer
    texts = [tokenizer.encode(line, add_special_tokens=True) for line in sentences(60, seed=3)]
    return torch.tensor([ids[:12] for ids in texts if len(ids) >= 12])


@torch.no_grad()
def divergence(model, teacher, rows):
    logits, wanted = model(rows).logits, teacher(rows).logits
    return float(logits_loss(logits.flatten(0, 1), wanted.flatten(0, 1), 1.0))


def test_distillation_brings_the_student_to_its_teacher_on_text_it_has_not_seen(place, tmp_path):
    weights = LossWeights(cross_entropy=0.0, logits=1.0, relation=1.0, temperature=1.0)
    config = config_of(place, weights=weights, steps=40, learning_rate=1e-2)
    teacher, rows = load_teacher(place / "llama").model, held_out(place)
    first = distill(
        replace(config, finetune=replace(config.finetune, steps=1, learning_rate=0.0)),
        tmp_path / "first",
    )
    last = distill(config, tmp_path / "last")
    before, after = (divergence(run.model, teacher, rows) for run in (first, last))
    print(before, after, last.losses[::10])
    assert after < 0.5 * before
    assert last.losses[-1] < 0.5 * last.losses[0]


@pytest.mark.parametrize("form", ["packed", "master"])
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_the_engine_runs_the_student_as_torch_does(place, tmp_path, kind, form):
    done = distill(config_of(place, kind=kind, steps=4, form=form), tmp_path / "out")
    assert done.folder == tmp_path / "out" / "finetune" / "model"
    done.model.set_attn_implementation("eager")
    single, double = (
        Oracle(done.folder, dtype, copy.deepcopy(done.model))
        for dtype in (torch.float32, torch.float64)
    )
    engine = comparable_engine(done.folder)
    assert engine.spec["attn_sub_norm"] == engine.spec["ffn_sub_norm"] is True
    ours, theirs = [], []
    for row in held_out(place)[:20].tolist():
        exact = double.logits(row)
        ours.append(distances(engine.logits(row), exact))
        theirs.append(distances(single.logits(row), exact))
    assert_like_fp32(ours, theirs)
    names = {path.name for path in done.folder.iterdir()}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= names


def test_without_stage_1_there_are_no_sub_norms(place, tmp_path):
    done = distill(config_of(place, steps=1, sub_norm=False), tmp_path / "out")
    assert not any("sub_norm" in name for name in load_file(done.folder / "model.safetensors"))
    assert not comparable_engine(done.folder).spec["attn_sub_norm"]


def test_stage_2_learns_plain_text_before_stage_3(place, tmp_path):
    config = config_of(place, "task.jsonl", steps=3)
    steps = []
    distill(
        replace(config, pretrain=stage(place / "text.txt", steps=30, learning_rate=5e-3)),
        tmp_path / "out",
        report=lambda name, record: steps.append((name, record.step, record.loss)),
    )
    names = [name for name, *_ in steps]
    assert names == ["pretrain"] * 30 + ["finetune"] * 3
    assert steps[29][2] < 0.7 * steps[0][2]
    done = distill(config, tmp_path / "without")
    assert not (tmp_path / "without" / "pretrain").exists()
    assert done.losses[0] != steps[30][2]
    # What stage 2 left is another student's start, and then gives the same.
    pretrained = tmp_path / "out" / "pretrain" / "model"
    start = replace(config.finetune, start=str(pretrained))
    again = distill(replace(config, finetune=start), tmp_path / "again")
    assert again.losses == [loss for name, _, loss in steps if name == "finetune"]


class KilledError(Exception):
    pass


@pytest.mark.parametrize("killed_in", ["pretrain", "finetune"])
def test_a_killed_distillation_goes_on_as_if_nothing_had_been(place, tmp_path, killed_in):
    often = {"steps": 6, "save_every": 3}
    config = config_of(place, "task.jsonl", **often)
    config = replace(config, pretrain=stage(place / "text.txt", **often))

    def kill(name, record):
        if (name, record.step) == (killed_in, 5):
            raise KilledError

    with pytest.raises(KilledError):
        distill(config, tmp_path / "killed", report=kill)
    resumed = distill(config, tmp_path / "killed", resume=True)
    whole = distill(config, tmp_path / "whole")
    assert resumed.losses == whole.losses
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_a_teacher_in_a_gguf_file_is_the_model_that_was_put_in(tmp_path):
    model = make_model(vocab_size=4096, tie_word_embeddings=True)
    config = model.config.to_dict() | {"rope_theta": 10000.0}
    tensors = {}
    for name, values in model.state_dict().items():
        heads = {"q_proj": 6, "k_proj": 2}.get(name.split(".")[-2])
        rows = values.numpy() if heads is None else permuted(values.numpy(), heads)
        if name != "lm_head.weight":
            tensors[gguf_name(name)] = floats(rows)
    keys = [*config_keys("llama", config), *tokenizer_keys(embedded_tokenizer())]
    path = tmp_path / "teacher.gguf"
    path.write_bytes(gguf_bytes(tensors, keys))
    teacher = load_teacher(path)
    for name, values in model.state_dict().items():
        assert torch.equal(teacher.model.state_dict()[name], values), name
    assert teacher.tokenizer.encode("Once upon", add_special_tokens=True)[0] == 1
    assert not any(p.requires_grad for p in teacher.model.parameters())
    ids = torch.tensor([[1, 500, 600, 700]])
    assert torch.allclose(teacher.model(ids).logits, model(ids).logits, atol=1e-6)


def test_of_a_task_the_answer_and_the_end_are_learned_and_each_example_once_in_a_pass(place):
    tokenizer = Tokenizer.load(place / "tokenizer", vocab_size=VOCAB)
    examples = read_tasks(place / "task.jsonl")
    rows = TaskRows(examples, tokenizer, 64, seed=7)
    batch = rows.rows(40, 40)  # the second pass
    found = []
    for ids, labels in batch:
        learned, present = labels != IGNORED, ids != IGNORED
        text = tokenizer.decode([*ids[present].tolist(), labels[learned][-1]], False)
        answer = tokenizer.decode(labels[learned].tolist(), False)
        example = next(e for e in examples if text == f"<s>{e.prompt}{e.completion}</s>")
        assert answer == f"{example.completion}</s>"
        last = np.flatnonzero(learned)[-1]
        assert np.array_equal(ids[1 : last + 1][learned[:last]], labels[learned][:-1])
        found.append(text)
    assert sorted(found) == sorted(f"<s>{e.prompt}{e.completion}</s>" for e in examples)
    parts = [rows.rows(first, 7) for first in range(36, 64, 7)]
    assert np.array_equal(np.concatenate(parts)[4:], batch[:24])


def test_a_task_is_learned(place, tmp_path):
    weights = LossWeights(logits=0.0, relation=0.0)
    config = config_of(place, "task.jsonl", weights=weights, steps=40, learning_rate=2e-2)
    losses = distill(config, tmp_path / "out").losses
    assert losses[0] > 3
    assert losses[-1] < 0.2


@pytest.mark.parametrize("sub_norm", [True, False])
def test_train_learns_a_task_as_distill_does_without_its_teacher(place, tmp_path, sub_norm):
    weights = LossWeights(logits=0.0, relation=0.0)
    config = config_of(place, "task.jsonl", weights=weights, steps=6, sub_norm=sub_norm)
    alone = train(replace(config.finetune, start=str(place / "llama")), tmp_path / "alone")
    assert alone.losses == pytest.approx(distill(config, tmp_path / "out").losses, abs=1e-5)
    tokenizer = load_teacher(place / "llama").tokenizer
    length = TaskRows(read_tasks(place / "task.jsonl"), tokenizer, 32, seed=0).length
    assert alone.records[-1].tokens == 6 * 4 * length  # of the rows, not the context


def test_a_teacher_may_be_tuned_on_the_task_by_train(place, tmp_path):
    settings = stage(place / "task.jsonl", steps=20, linear="full", start=str(place / "llama"))
    tuned = train(settings, tmp_path / "run")
    assert tuned.losses[-1] < 0.7 * tuned.losses[0]
    teacher = load_teacher(tuned.folder).model
    for name, tensor in tuned.model.state_dict().items():
        assert torch.equal(teacher.state_dict()[name], tensor), name


def test_examples_without_a_tokenizer_are_refused(place, tmp_path):
    with pytest.raises(ConfigError, match="tokenizer: expected a folder, there is no text"):
        train(stage(place / "task.jsonl"), tmp_path / "run")


def test_a_teacher_with_another_tokenizer_is_refused(place, tmp_path):
    distill(config_of(place, steps=1), tmp_path / "student")
    train_tokenizer([place / "held_out.txt"], VOCAB - 5, tmp_path / "other")
    write_teacher(tmp_path / "teacher", tmp_path / "other")
    start = str(tmp_path / "student" / "finetune" / "model")
    config = config_of(place, steps=1, start=start)
    with pytest.raises(
        TrainingError, match=r"teacher: expected the tokenizer of .*, in which token"
    ):
        distill(replace(config, teacher=str(tmp_path / "teacher")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def damaged_teacher(place, folder, **tensors):
    (folder / "teacher").mkdir()
    for file in (place / "llama").iterdir():
        (folder / "teacher" / file.name).write_bytes(file.read_bytes())
    path = folder / "teacher" / "model.safetensors"
    save_file(load_file(path) | tensors, path)
    return str(folder / "teacher")


def test_a_teacher_that_cannot_be_is_refused(place, tmp_path):
    name = "model.layers.1.mlp.up_proj.weight"
    weight = load_file(place / "llama" / "model.safetensors")[name].clone()
    weight[3, 5] = float("nan")
    config = config_of(place, steps=1)
    with pytest.raises(BitinferError, match=rf"{name}: expected finite numbers, got nan at 149"):
        distill(
            replace(config, teacher=damaged_teacher(place, tmp_path, **{name: weight})),
            tmp_path / "out",
        )
    student = distill(config, tmp_path / "ternary").folder
    with pytest.raises(BitinferError, match="of a teacher of full precision, got one: take"):
        distill(replace(config, teacher=str(student)), tmp_path / "out")
    with pytest.raises(BitinferError, match="nothing there: check the path"):
        distill(replace(config, teacher=str(tmp_path / "no")), tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"task\.jsonl: expected text, got an empty file"),
        ("\n\n", r"task\.jsonl: expected a JSON object in each line, got blank lines"),
        ('{"text": "a", "label": "b"}\n{"text": "a"}', 'line 2: expected the key "label", got'),
        ('{"prompt": "a", "completion": ""}', '"completion": expected a text that is not empty'),
        ('{"prompt": 3, "completion": "b"}', '"prompt": expected a text, got'),
        ('{"text": "a", "label": [1]}', '"label": expected a text or a whole number'),
        (json.dumps({"text": "ab " * 99, "label": "b"}), "line 1: expected at most 32 tokens, got"),
    ],
)
def test_tasks_that_cannot_be_are_refused_before_anything_is_made(
    place, tmp_path, content, message
):
    (tmp_path / "task.jsonl").write_text(content)
    config = config_of(tmp_path, "task.jsonl")
    with pytest.raises(BitinferError, match=message) as caught:
        distill(replace(config, teacher=str(place / "llama")), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_no_number_stops_the_run(place, tmp_path):
    config = config_of(place, weights=LossWeights(relation=1e39))
    with pytest.raises(TrainingError, match="step 1: the loss is inf"):
        distill(config, tmp_path / "out")


def test_another_config_is_not_resumed(place, tmp_path):
    config = config_of(place, steps=1)
    distill(config, tmp_path / "out")
    with pytest.raises(TrainingError, match="expected a new folder, got one that holds"):
        distill(config, tmp_path / "out")
    other = replace(config, weights=LossWeights(logits=2.0))
    with pytest.raises(BitinferError, match=r"weights: .* as the distillation in .* began"):
        distill(other, tmp_path / "out", resume=True)
    with pytest.raises(BitinferError, match="expected the folder of a distillation, got no"):
        distill(config, tmp_path / "nothing", resume=True)


def test_the_command_makes_a_student_and_says_where(place, tmp_path):
    out = tmp_path / "out"
    arguments = [*(place / "llama", place / "task.jsonl", out, "--pretrain", place / "text.txt")]
    arguments += ["--context-length", 32, "--batch-size", 4, "--pretrain-steps", 2, "--steps", 2]
    done = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    assert f"wrote {out / 'finetune' / 'model'}: 0." in done.output
    assert comparable_engine(out / "finetune" / "model").spec["attn_sub_norm"]
    again = CliRunner().invoke(command, [str(out), "--resume"])
    assert again.output.splitlines()[-1] == done.output.splitlines()[-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokenizer": "here"}, "finetune: expected no tokenizer, shape or ternary_from"),
        ({"data": ()}, "finetune: data: expected a file or more to train on, got none"),
        (
            {"data": ("a.jsonl", "b.txt")},
            r"expected one \.jsonl file alone, or texts, got a\.jsonl",
        ),
        ({"data": ("a.jsonl:3",)}, r"expected one \.jsonl file alone, or texts, got a\.jsonl:3"),
    ],
)
def test_settings_without_a_meaning_here_are_refused(place, settings, message):
    config = config_of(place)
    with pytest.raises(BitinferError, match=message):
        replace(config, finetune=replace(config.finetune, **settings))

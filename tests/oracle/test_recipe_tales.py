"""The recipe of the embedded model: a teacher with its vocabulary, and what a student learns."""

import json
import re
import subprocess
import sys

import about_itself
import numpy as np
import pytest
import story_chats
import student
import taught
import teacher_start
import torch
from round_floats import round_floats
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from bitinfer.runtime import default_model

TEXT = "".join(
    f"<s>Once upon a time, there was a cat number {i}. It slept.</s>\n" for i in range(600)
)


@pytest.fixture(scope="module")
def vocabulary():
    return Tokenizer.from_file(str(default_model() / "tokenizer.json"))


@pytest.fixture
def asked(tmp_path, vocabulary):
    """A small teacher that went through the first rows of a text, and the text."""
    text = tmp_path / "tinystories.txt"
    text.write_text(TEXT)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary.get_vocab_size(),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    teacher = LlamaForCausalLM(config).eval()
    known = taught.Taught(text, default_model(), tmp_path)
    known.ask(teacher)
    return teacher, text


def test_a_row_of_the_new_embedding_is_the_mean_of_those_that_write_the_token(vocabulary):
    theirs = Tokenizer.from_str(vocabulary.to_str())
    rows = teacher_start.rows_of(vocabulary, theirs)
    ids = vocabulary.get_vocab()
    assert rows[ids["Ġcat"]] == [ids["Ġcat"]]
    assert teacher_start.pieces("Ġcatcat", {"Ġ": 0, "Ġca": 1, "t": 2, "ca": 3}) == [
        "Ġca",
        "t",
        "ca",
        "t",
    ]
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=4,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    old = model.get_input_embeddings().weight.detach().numpy().copy()
    teacher_start.with_vocabulary(model, [[1], [2, 3], [7, 7, 1]])
    expected = np.stack([old[1], (old[2] + old[3]) / 2, (2 * old[7] + old[1]) / 3])
    np.testing.assert_allclose(model.get_output_embeddings().weight.detach(), expected, rtol=1e-6)
    assert model.config.vocab_size == 3


def test_what_is_kept_is_what_the_teacher_says(asked, tmp_path):
    teacher, text = asked
    known = taught.Taught(text, default_model(), tmp_path)
    assert known.count == known.total >= 8
    row = known.rows.rows(5, 1)[0]
    with torch.no_grad():
        logs = teacher(torch.from_numpy(row[None, :-1])).logits[0].log_softmax(-1)
    present, ids, kept = known.likeliest(np.array([5]))
    assert present.tolist() == [1]
    best, _ = logs.topk(taught.LIKELIEST)
    # float16 keeps a logarithm of 8 to 16 within 2^-8.
    np.testing.assert_allclose(kept[0], best, atol=2**-8)
    np.testing.assert_allclose(logs.gather(1, ids[0]), best, atol=1e-5)


def test_a_teacher_that_was_killed_goes_on(asked, tmp_path):
    teacher, text = asked
    whole = (tmp_path / "tinystories.taught").read_bytes()
    (tmp_path / "tinystories.taught").write_bytes(whole[: len(whole) // 2 + 1001])
    again = taught.Taught(text, default_model(), tmp_path)
    assert 0 < again.count < again.total
    again.ask(teacher)
    assert (tmp_path / "tinystories.taught").read_bytes() == whole


def test_the_loss_is_the_cross_entropy_with_what_is_left_as_one_more_token():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 9))
    ours = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    theirs = rng.dirichlet(np.ones(9), size=3)
    ids = np.argsort(-theirs, axis=1)[:, :4]
    kept = np.take_along_axis(theirs, ids, 1)
    mine = np.exp(np.take_along_axis(ours, ids, 1))
    expected = -(kept * np.log(mine)).sum(1) - (1 - kept.sum(1)) * np.log(1 - mine.sum(1))
    found = taught.taught_loss(*map(torch.from_numpy, (ours, ids, np.log(kept))))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_step_holds_each_story_once_in_a_pass_and_knows_its_number(asked, tmp_path):
    _, text = asked
    known = taught.Taught(text, default_model(), tmp_path)
    rows = student.MixedRows(known, known.rows, 16)
    steps = -(-known.total // student.STORY_ROWS)
    seen = np.concatenate([rows.rows(16 * step, 16) for step in range(steps)])
    numbers = seen[:, 0].reshape(-1, 16)
    assert (numbers[:, student.STORY_ROWS :] == student.UNNUMBERED).all()
    stories = numbers[:, : student.STORY_ROWS].ravel()[: known.total]
    assert sorted(stories) == list(range(known.total))
    for row in seen[:4]:
        assert (row[1:] == known.rows.rows(int(row[0]), 1)[0]).all()


def test_rounding_halves_the_floats_and_nothing_else(tmp_path):
    given = {
        "model.embed_tokens.weight": torch.tensor([[1.0, 1.0 + 2**-9]]),
        "model.layers.0.mlp.up_proj.weight": torch.tensor([[27]], dtype=torch.uint8),
        "model.layers.0.mlp.up_proj.weight_scale": torch.tensor([1.0 + 2**-9]),
    }
    save_file(given, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"vocab_size": 1, "dtype": "float32"}')
    round_floats(tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    codes = found.pop("model.layers.0.mlp.up_proj.weight")
    assert torch.equal(codes, given["model.layers.0.mlp.up_proj.weight"])
    assert len(found) == 2
    for name, tensor in found.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor.float(), torch.ones_like(given[name]))
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_chat_ends_with_a_story_that_was_asked_for(tmp_path):
    (tmp_path / "chat_own.txt").write_text("<s><|user|>Hi<|assistant|>Hello</s>\n" * 2)
    (tmp_path / "about_itself.txt").write_text("<s><|user|>Who?<|assistant|>Tales</s>\n")
    asked = "<|user|>A story<|assistant|>Once."
    long = "<|user|>A story<|assistant|>" + "Once. " * story_chats.LONGEST_STORY
    (tmp_path / "tinystories.txt").write_text(f"<s>Not asked for.</s>\n<s>{asked}</s><s>{long}</s>")
    found = story_chats.story_chats(tmp_path)
    turn = r"(<\|user\|>(Hi<\|assistant\|>Hello|Who\?<\|assistant\|>Tales)</s>){1,2}"
    assert len(found) == story_chats.COUNT
    assert all(re.fullmatch(f"<s>{turn}{re.escape(asked)}</s>", chat) for chat in found)


def test_chats_about_itself_are_the_same_each_time_and_none_is_held_out(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        command = [sys.executable, about_itself.__file__, str(tmp_path / name)]
        subprocess.run(command, check=True)
    first, second = ((tmp_path / name / "about_itself.txt").read_text() for name in ("a", "b"))
    assert first == second
    assert first.count("<s>") == about_itself.COUNT
    assert about_itself.NAME in first

"""The recipe of the embedded model: settings, a teacher and its stories, texts by rule, floats."""

import json
import re
import subprocess
import sys
from pathlib import Path

import about_itself
import story_chats
import teacher_start
import tell
import torch
from round_floats import round_floats
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from bitinfer.runtime import default_model
from bitinfer.train import TrainConfig
from bitinfer.train.config import read_toml


def test_the_recipe_is_of_the_embedded_model():
    recipe = Path(about_itself.__file__).parent / "tales.toml"
    config = TrainConfig(**read_toml(recipe))
    more = TrainConfig(**read_toml(recipe.with_name("more.toml")))
    assert (config.form, Path(more.start)) == ("master", recipe.parent / "run" / "model")
    embedded = json.loads((default_model() / "config.json").read_text())
    assert {name: embedded[name] for name in config.shape} == dict(config.shape)
    tokenizers = [Path(folder) / "tokenizer.json" for folder in (config.tokenizer, default_model())]
    assert tokenizers[0].read_bytes() == tokenizers[1].read_bytes()
    given = (*config.data, *more.data, *config.validation)
    texts = {Path(text.split(":")[0]) for text in given}
    kept = {recipe.parent / "data" / path.name for path in recipe.parent.glob("data/*.xz")}
    made = texts - {path.with_suffix("") for path in kept}
    assert {path.name for path in made} == {"about_itself.txt", "story_chats.txt"}


def llama(**shape):
    """A small teacher."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        initializer_range=0.5,  # else a random model says one token for ever
        **shape,
    )
    return LlamaForCausalLM(config).eval()


def test_a_teacher_with_fewer_tokens_says_the_same_of_the_stories():
    parts = json.loads((default_model() / "tokenizer.json").read_text())
    before = Tokenizer.from_str(json.dumps(parts))
    stories = ["Once upon a time, there was a cat. The cat slept.", "A dog ran."]
    rows = teacher_start.keep_tokens(parts, teacher_start.used_tokens(parts, stories))
    after = Tokenizer.from_str(json.dumps(parts))
    assert 256 < len(rows) == after.get_vocab_size() < 400
    model = llama(vocab_size=before.get_vocab_size())
    old, new = (torch.tensor(t.encode("<s>" + "".join(stories)).ids) for t in (before, after))
    assert torch.equal(torch.tensor(rows)[new], old)
    with torch.no_grad():
        expected = model(old[None]).logits[0][:, rows]
        teacher_start.keep_rows(model, rows)
        found = model(new[None]).logits[0]
    torch.testing.assert_close(found, expected)
    assert after.decode(after.encode("Zebras œ").ids) == "Zebras œ"  # byte by byte


def test_marks_take_the_places_of_special_tokens():
    special = ["<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>"]
    parts = {
        "added_tokens": [{"id": i, "content": token} for i, token in enumerate(special)],
        "model": {"vocab": {token: i for i, token in enumerate([*special, "a"])}},
    }
    teacher_start.rename_marks(parts)
    marks = ["<s>", "</s>", "<|user|>", "<|assistant|>", "<file_sep>"]
    assert [entry["content"] for entry in parts["added_tokens"]] == marks
    assert parts["model"]["vocab"] == {token: i for i, token in enumerate([*marks, "a"])}


def test_stories_are_those_of_transformers_if_the_likeliest_token_is_drawn(tmp_path, monkeypatch):
    llama(vocab_size=24, eos_token_id=5, bos_token_id=1, pad_token_id=0).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((default_model() / "tokenizer.json").read_bytes())
    model = tell.load(tmp_path)[0].float()
    monkeypatch.setattr(tell, "draw", lambda logits: logits.argmax(-1, keepdim=True))
    monkeypatch.setattr(tell, "LONGEST", 30)
    openings = torch.randint(6, 24, (40, 3), generator=torch.Generator().manual_seed(1))
    plain = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).float()
    expected = plain.generate(openings, do_sample=False, max_length=31).tolist()
    ended = [row[1 : row.index(5)] for row in expected if 5 in row]
    assert 5 < len(ended) < 40
    assert sorted(tell.tell(model, openings, 5)) == sorted(ended)


def test_a_token_is_drawn_by_its_probability_among_the_likeliest():
    torch.manual_seed(0)
    logits = torch.full((4000, 100), -30.0)
    logits[:, :3] = torch.tensor([0.6, 0.37, 0.03]).log() * tell.TEMPERATURE
    drawn = tell.draw(logits)[:, 0].bincount()
    assert len(drawn) == 2  # the third is beyond top-p
    # 0.6 / 0.97 of 4,000, five standard deviations of 31 on either side.
    assert abs(int(drawn[0]) - 2474) < 155


def test_a_story_begins_as_one_that_is_known_and_says_nothing_twice(tmp_path, monkeypatch):
    assert tell.repeats("A cat ran away. It slept. A cat ran away.")
    assert not tell.repeats("No, no. No, no. A cat ran away.")
    monkeypatch.setattr(tell, "AT_ONCE", 2)
    asked = "<s><|user|>Tell me a story.<|assistant|>Once upon a time, there was a cat.</s>\n"
    text = tmp_path / "text"
    text.write_text(asked * 2 + "<s>Lily and Tom went to the park.</s>\n" * 3 + "<s>A dog.</s>")
    tokenizer = Tokenizer.from_file(str(default_model() / "tokenizer.json"))
    found = tell.openings(text, tokenizer)
    words = {
        tokenizer.decode(rows[0], skip_special_tokens=False): len(rows) for rows in found.values()
    }
    assert words == {
        "<s><|user|>Tell me a story.<|assistant|>Once upon a time,": 2,
        "<s>Lily and Tom went to": 3,  # and no dog, which says too little
    }


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

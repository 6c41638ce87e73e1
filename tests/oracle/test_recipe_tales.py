"""The recipe of the embedded model: its settings, the texts that are made by rule, its floats."""

import json
import re
import subprocess
import sys
from pathlib import Path

import about_itself
import story_chats
import torch
from round_floats import round_floats
from safetensors.torch import load_file, save_file

from bitinfer.runtime import default_model
from bitinfer.train import TrainConfig
from bitinfer.train.config import read_toml


def test_the_recipe_is_of_the_embedded_model():
    recipe = Path(about_itself.__file__).parent / "tales.toml"
    config = TrainConfig(**read_toml(recipe))
    finish = TrainConfig(**read_toml(recipe.with_name("finish.toml")))
    assert (config.form, Path(finish.start)) == ("master", recipe.parent / "run" / "model")
    embedded = json.loads((default_model() / "config.json").read_text())
    assert {name: embedded[name] for name in config.shape} == dict(config.shape)
    tokenizers = [Path(folder) / "tokenizer.json" for folder in (config.tokenizer, default_model())]
    assert tokenizers[0].read_bytes() == tokenizers[1].read_bytes()
    texts = {Path(text.split(":")[0]) for text in (*config.data, *config.validation)}
    assert {Path(text.split(":")[0]) for text in finish.data} < texts
    kept = {recipe.parent / "data" / path.name for path in recipe.parent.glob("data/*.xz")}
    made = texts - {path.with_suffix("") for path in kept}
    assert {path.name for path in made} == {"about_itself.txt", "story_chats.txt"}


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

"""What files of sentence-transformers say of pooling, and how bad ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedding_models import sentence_transformers_files

from bitinfer.errors import ConfigError
from bitinfer.pooling import Pooling

SPEC = {"hidden_size": 24, "projection_norm": None, "qk_norm": False}
LAST = {"word_embedding_dimension": 24, "pooling_mode_lasttoken": True}


def load(folder: Path, pooling: dict[str, Any] = LAST, **options: Any) -> Pooling:
    return Pooling.load(sentence_transformers_files(folder, pooling, **options), SPEC)


def test_without_files_bitnet_embedding_is_known_by_its_norms(tmp_path: Path) -> None:
    inside = {**SPEC, "projection_norm": "rms_norm", "qk_norm": True}
    assert Pooling.load(tmp_path, inside) == Pooling("last", normalize=True, trained=True)
    assert Pooling.load(tmp_path, SPEC) == Pooling("last", normalize=True, trained=False)


@pytest.mark.parametrize(
    ("pooling", "mode"),
    [
        (LAST, "last"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_max_tokens": False}, "cls"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
    ],
)
def test_modes_are_read_in_both_spellings(
    tmp_path: Path, pooling: dict[str, Any], mode: str
) -> None:
    assert load(tmp_path, pooling) == Pooling(mode, normalize=True, trained=True)
    assert not load(tmp_path, pooling, kinds=("Transformer", "Pooling")).normalize


def test_the_norm_of_a_zero_vector_is_no_division_by_zero() -> None:
    assert Pooling().pool(np.zeros((2, 3), np.float32)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("pooling", "options", "expected"),
    [
        ({"pooling_mode_max_tokens": True}, {}, "expected one of pooling_mode_lasttoken"),
        ({**LAST, "pooling_mode_mean_tokens": True}, {}, "mean_tokens: give pooling yourself"),
        ({}, {}, "got none"),
        ({**LAST, "word_embedding_dimension": 32}, {}, "expected 24, the model's hidden_size"),
        (LAST, {"kinds": ("Transformer", "Pooling", "Dense")}, "got Transformer, Pooling, Dense"),
        (LAST, {"kinds": ()}, "got nothing"),
        (LAST, {"prompts": {"prompts": {"query": 1}}}, "prompts: expected names with texts"),
        (LAST, {"prompts": {"default_prompt_name": "query"}}, "expected one of the prompts"),
        (LAST, {"max_seq_length": 0}, "max_seq_length: expected a number of tokens, got 0"),
    ],
)
def test_what_is_not_known_is_refused(
    tmp_path: Path, pooling: dict[str, Any], options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, pooling, **options)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{}", "expected a JSON array, got dict"), ("[1]", "got None"), ("[", "is not")],
)
def test_a_damaged_list_of_modules_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(ConfigError, match=expected):
        Pooling.load(tmp_path, SPEC)


def test_a_path_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    sentence_transformers_files(tmp_path, LAST)
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[1]["path"] = "../elsewhere"
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ConfigError, match=r"path: expected 1_Pooling, got '../elsewhere'"):
        Pooling.load(tmp_path, SPEC)

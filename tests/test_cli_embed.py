"""``bitinfer embed``: where texts come from, what is printed, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from embedding_models import sentence_transformers_files, write_encoder
from test_cli import assert_one_line_error, run, run_inside

from bitinfer.convert import convert
from bitinfer.model import Model

TEXTS = ["A cat sat.", "The dog ran.", "sun"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("embed")
    return convert(write_encoder(root / "encoder"), root / "packed")


@pytest.fixture(scope="module")
def vectors(folder: Path) -> np.ndarray:
    with Model.load(folder) as model:
        return model.embed(TEXTS)


def parsed(stdout: str) -> np.ndarray:
    return np.array([json.loads(line)["embedding"] for line in stdout.splitlines()], np.float32)


def test_json_lines_hold_every_bit(folder: Path, vectors: np.ndarray) -> None:
    done = run_inside("embed", folder, *TEXTS)
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == TEXTS
    assert parsed(done.stdout).tobytes() == vectors.tobytes()


def test_texts_come_from_stdin_or_files_too(
    folder: Path, vectors: np.ndarray, tmp_path: Path
) -> None:
    lines = "\n".join(TEXTS) + "\n"
    assert parsed(run_inside("embed", folder, stdin=lines).stdout).tobytes() == vectors.tobytes()
    (tmp_path / "texts").write_text("\n".join(TEXTS[1:]))
    done = run_inside("embed", folder, TEXTS[0], "--file", tmp_path / "texts")
    assert parsed(done.stdout).tobytes() == vectors.tobytes()
    assert run_inside("embed", folder, stdin="").stdout == ""


def test_vectors_are_written_to_files(folder: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    done = run_inside("embed", folder, *TEXTS, "-o", tmp_path / "out.npy")
    assert done.stdout == ""
    assert "3 vectors of 24 numbers" in done.stderr
    written = np.load(tmp_path / "out.npy")
    assert (written.dtype, written.tobytes()) == (np.float32, vectors.tobytes())
    run_inside("embed", folder, *TEXTS, "-o", tmp_path / "out.jsonl")
    assert parsed((tmp_path / "out.jsonl").read_text()).tobytes() == vectors.tobytes()


def test_similarity_is_a_table_of_cosines(folder: Path, vectors: np.ndarray) -> None:
    texts = [*TEXTS, "a very long text that no table has room for \x1b[31m"]
    done = run_inside("embed", folder, "--similarity", *texts)
    rows = done.stdout.splitlines()
    assert all(len(row) <= 80 for row in rows)
    assert "\x1b" not in done.stdout
    assert rows[0].split() == ["1", "2", "3", "4"]
    numbers = np.array([[float(cell) for cell in row.split()[-4:]] for row in rows[1:]])
    assert np.abs(numbers[:3, :3] - vectors @ vectors.T).max() <= 6e-4  # three digits


def test_options_are_those_of_the_model(folder: Path, tmp_path: Path) -> None:
    described = write_encoder(tmp_path / "encoder")
    sentence_transformers_files(
        described, {"pooling_mode_mean_tokens": True}, prompts={"prompts": {"query": "The "}}
    )
    options = ["--prompt-name", "query", "--no-normalize", "--truncate", "--threads", 1]
    done = run_inside("embed", described, *options, "dog ran. " * 40)
    with Model.load(described) as model:
        expected = model.embed(
            ["dog ran. " * 40], prompt_name="query", normalize=False, truncate=True
        )
    assert parsed(done.stdout).tobytes() == expected.tobytes()
    other = run("embed", described, "--pooling", "last", "dog ran.")
    assert "was not trained for such embeddings" in other.stderr
    assert parsed(other.stdout).shape == (1, 24)


@pytest.mark.parametrize(
    ("arguments", "parts", "code"),
    [
        (["--similarity", "-o", "x.npy", "a"], ["--similarity"], 2),
        (["-o", "x.csv", "a"], [".npy or .jsonl", "x.csv"], 2),
        (["--similarity", *"abcdefghij"], ["at most 8 texts in 80 columns"], 2),
        (["--prompt-name", "query", "a"], ["prompt_name: expected one of the model's (none)"], 1),
        (["dog ran. " * 40], ["text 0: expected at most 64 tokens"], 1),
        (["--file", "nowhere.txt"], ["nowhere.txt"], 1),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    folder: Path, arguments: list[str], parts: list[str], code: int
) -> None:
    assert_one_line_error(run_inside("embed", folder, *arguments), *parts, code=code)

"""Packed files of models with weight scales for groups of columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import damage
from test_packed import rewrite
from tiny_models import LLAMA, Spec, Weights, float_tensor, make_tiny_model

from bitinfer import PackedFileError
from bitinfer.config import inv_freq
from bitinfer.engine import Engine
from bitinfer.families.spec import check_spec
from bitinfer.formats.packed import PACKED_NAME, PackedHeader, PackedWriter
from bitinfer.reference import ReferenceDecoder

NAME = "model.layers.0.mlp.down_proj.weight"  # (72, 136): two groups of 64 and one of 8


def make_model(packing: str, **overrides: Any) -> tuple[Spec, Weights]:
    traits = {"scale_group_size": 64, "activation_levels": 16383, **overrides}
    return make_tiny_model(traits, base=LLAMA, packing=packing)


def write_folder(folder: Path, model: tuple[Spec, Weights], groups: dict[str, int]) -> Path:
    """A packed folder of the model, as convert writes it."""
    spec, weights = {**model[0]}, dict(model[1])
    del weights["rope.inv_freq"]
    head = spec.pop("head")
    ternary = {name: t[2] for name, t in weights.items() if t[1] in ("i2", "t3", "t5")}
    packing = weights[NAME][1]
    header = PackedHeader(packing, head, spec, ternary, {"name": "tiny"}, groups)
    tensors = {
        name: ("U8", (len(data),)) if name in ternary else (dtype.upper(), shape)
        for name, (data, dtype, shape) in weights.items()
    }
    folder.mkdir()
    with PackedWriter(folder / PACKED_NAME, header, tensors) as writer:
        for name in writer.order:
            writer.write(name, weights[name][0])
    return folder


def groups_of(model: tuple[Spec, Weights]) -> dict[str, int]:
    size = model[0]["scale_group_size"]
    names = [name for name, t in model[1].items() if t[1] in ("i2", "t3", "t5")]
    return {name: min(size, model[1][name][2][1]) for name in names}


def expected_logits(model: tuple[Spec, Weights], ids: np.ndarray) -> bytes:
    """Of the reference, with the angles that loading makes."""
    spec = {name: value for name, value in model[0].items() if name != "head"}
    table = inv_freq(check_spec(spec, "tiny", PackedFileError))
    weights = {**model[1], "rope.inv_freq": float_tensor(table, "f32")}
    return ReferenceDecoder(model[0], weights, "f32").logits(ids).tobytes()


def logits_of(engine: Engine, ids: np.ndarray) -> bytes:
    return engine.forward([ids], [engine.new_cache(64)], logits="all").tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = make_model("i2")
    return write_folder(tmp_path / "packed", model, groups_of(model))


@pytest.mark.parametrize("stored", ["i2", "t5"])
@pytest.mark.parametrize("packing", ["auto", "i2", "t5"])
def test_a_file_is_loaded_in_any_packing_for_groups(
    stored: str, packing: str, tmp_path: Path
) -> None:
    model = make_model(stored)
    engine = Engine.load(
        write_folder(tmp_path / "packed", model, groups_of(model)),
        packing=packing,
        kv_cache="f32",
    )
    ids = np.arange(20, dtype=np.int32)
    assert logits_of(engine, ids) == expected_logits(model, ids)


def test_groups_are_never_repacked_to_t3(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitinfer.runtime.auto_packing", lambda: "t3")
    assert Engine.load(folder).packing == "i2"
    with pytest.raises(ValueError, match="packing: expected i2 or t5 for groups of 64 columns"):
        Engine.load(folder, packing="t3")


def test_idle_neurons_are_not_skipped_in_groups(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"ffn: expected a model with .*: use dense"):
        Engine.load(folder, ffn="sparse")


def refused(folder: Path) -> str:
    with pytest.raises(PackedFileError) as caught:
        Engine.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (None, f"{NAME}: expected 64 by the spec, got none"),
        (130, f"{NAME}: expected U8 ("),
        (32, f"{NAME}: expected 64 by the spec, got 32"),
        (137, f"{NAME}: group: expected 1 to 136 columns, got 137"),
        (0, f"ternary: {NAME}: expected [N, K] or [N, K, columns of a group], got [72, 136, 0]"),
    ],
)
def test_a_file_with_groups_of_another_size_is_refused(
    columns: int | None, expected: str, folder: Path
) -> None:
    def edit(header: dict[str, Any]) -> None:
        metadata = header["__metadata__"]
        ternary = json.loads(metadata["ternary"])
        ternary[NAME][2:] = [] if columns is None else [columns]
        metadata["ternary"] = json.dumps(ternary)

    rewrite(folder / PACKED_NAME, edit)
    assert expected in refused(folder)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("scale_group_size", 128, "expected 128 by the spec, got 64"),
        ("scale_group_size", None, "expected no scale groups by the spec, got 64"),
        ("scale_group_count", 2, "scale_group_size: expected null beside a scale_group_count"),
        ("activation_groups", True, "activation_groups: expected false without a projection_norm"),
    ],
)
def test_a_spec_with_other_groups_is_refused(
    key: str, value: object, expected: str, folder: Path
) -> None:
    def edit(header: dict[str, Any]) -> None:
        metadata = header["__metadata__"]
        metadata["spec"] = json.dumps({**json.loads(metadata["spec"]), key: value})

    rewrite(folder / PACKED_NAME, edit)
    assert expected in refused(folder)


def test_scales_of_another_shape_are_refused(folder: Path) -> None:
    def edit(header: dict[str, Any]) -> None:
        header[f"{NAME}_scale"]["shape"] = [72, 3]

    rewrite(folder / PACKED_NAME, edit)
    expected = f"{NAME}_scale: expected bf16 or f16 or f32 (3, 72), got f16 (72, 3)"
    assert expected in refused(folder)


def test_a_scale_that_is_no_number_is_refused(folder: Path) -> None:
    damage(folder / PACKED_NAME, f"{NAME}_scale", np.float16(np.inf).tobytes(), 2 * 100)
    assert f"{NAME}_scale: expected a finite scale, got inf at 100" in refused(folder)


def test_a_scale_of_zero_is_that_of_a_group_of_zeros(tmp_path: Path) -> None:
    model = make_model("t5")
    scales = np.zeros((3, 72), np.float32)
    model[1][f"{NAME}_scale"] = float_tensor(scales, "f32")
    engine = Engine.load(write_folder(tmp_path / "packed", model, groups_of(model)), kv_cache="f32")
    ids = np.arange(5, dtype=np.int32)
    assert logits_of(engine, ids) == expected_logits(model, ids)


def test_an_impossible_code_is_named_with_its_columns(folder: Path) -> None:
    damage(folder / PACKED_NAME, NAME, b"\xff")
    message = refused(folder)
    assert message.startswith(f"{NAME}: ")
    assert "code 3 at row 0" in message

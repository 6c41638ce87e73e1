"""Checkpoints of floats that are ternary times their scales: Falcon-E bfloat16, TriLM, Bonsai."""

import numpy as np
import pytest
from checkpoints import DENSE, LLAMA, QWEN3, make_tensors, projections, write_checkpoint

from bitinfer import _core
from bitinfer.convert import convert
from bitinfer.engine import Engine
from bitinfer.errors import BitinferError
from bitinfer.formats.packed import PACKED_NAME, PackedFile
from bitinfer.formats.safetensors import as_float32

WIDE = {"hidden_size": 256, "intermediate_size": 384, "head_dim": 64}
BONSAI = {name: value for name, value in QWEN3.items() if name != "quantization_config"} | WIDE
TRILM = {**DENSE, **WIDE}
LAST = "model.layers.1.mlp.down_proj.weight"


def scales_of(layout, n, k, rng):
    """Scales (groups, N) as floats near 0.02, all of them alike or each of its own."""
    if layout == "matrix":
        return np.full((1, n), rng.uniform(0.01, 0.03))
    if layout == "rows of two devices":
        return np.repeat(rng.uniform(0.01, 0.03, (1, 2)), n // 2, axis=1)
    if layout == "columns of two devices":
        return np.repeat(rng.uniform(0.01, 0.03, (2, 1)), n, axis=1)
    return rng.uniform(0.01, 0.03, (k // 128, n))


LAYOUTS = {  # -> scale_group_size, scale_group_count
    "matrix": (None, None),
    "rows of two devices": (None, 1),
    "columns of two devices": (None, 2),
    "groups of 128": (128, None),
}


def scaled_tensors(config, layout, dtype=np.float16, seed=0, signs=(-1, 0, 1)):
    """Tensors of a dense checkpoint, each projection ternary times its scales."""
    rng = np.random.default_rng(seed)
    tensors, _ = make_tensors(config, seed, form="master", dtype=dtype)
    for name, (n, k) in projections(config).items():
        split = layout != "columns of two devices" or name.endswith(("o_proj", "down_proj"))
        scales = scales_of(layout if split else "rows of two devices", n, k, rng).astype(dtype)
        codes = rng.choice(np.array(signs, np.int8), (n, k))
        tensors[f"{name}.weight"] = codes.astype(dtype) * scales.repeat(k // len(scales), axis=0).T
    return tensors


def weights_of(file, name):
    """A packed matrix as floats."""
    data, packing, (n, k) = file.tensor(name)
    group = file.header.groups.get(name)
    codes = _core.unpack(data, packing, n, k, group=group)
    scale, dtype, shape = file.tensor(f"{name}_scale")
    scales = as_float32(scale, dtype.upper()).reshape(shape)
    return codes * (scales[0] if group is None else scales.repeat(group, axis=0)[:k].T)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_weight_is_kept_and_the_coarsest_layout_found(tmp_path, layout, dtype):
    tensors = scaled_tensors(TRILM, layout, dtype)
    write_checkpoint(tmp_path / "hf", TRILM, tensors)
    file = PackedFile(convert(tmp_path / "hf", tmp_path / "packed", packing="t5") / PACKED_NAME)
    spec = file.header.spec
    assert (spec["scale_group_size"], spec["scale_group_count"]) == LAYOUTS[layout]
    assert spec["activation_levels"] == 16383
    for name in file.header.ternary:
        assert (weights_of(file, name) == tensors[name]).all()


@pytest.mark.parametrize("config", [TRILM, BONSAI], ids=["TriLM", "Bonsai"])
def test_a_raw_folder_and_a_packed_one_give_the_same_logits(tmp_path, config):
    write_checkpoint(tmp_path / "hf", config, scaled_tensors(config, "groups of 128"))
    raw = Engine.load(tmp_path / "hf", head="source", num_threads=1).logits([1, 2, 3])
    for packing in ("i2", "t5"):
        target = convert(tmp_path / "hf", tmp_path / packing, packing=packing, head="source")
        assert (Engine.load(target, head="source", num_threads=1).logits([1, 2, 3]) == raw).all()


def test_signs_alone_are_ternary_too(tmp_path):
    tensors = scaled_tensors(BONSAI, "groups of 128", signs=(-1, 1))
    write_checkpoint(tmp_path / "hf", BONSAI, tensors)
    file = PackedFile(convert(tmp_path / "hf", tmp_path / "packed", packing="i2") / PACKED_NAME)
    assert file.header.spec["scale_group_size"] == 128
    assert (weights_of(file, LAST) == tensors[LAST]).all()
    embedding, dtype, _ = file.tensor("model.embed_tokens.weight")
    assert (dtype, embedding.tobytes()) == ("f16", tensors["model.embed_tokens.weight"].tobytes())


def test_a_matrix_and_a_row_of_zeros_are_ternary(tmp_path):
    for layout in ("matrix", "groups of 128"):
        tensors = scaled_tensors(TRILM, layout)
        tensors["model.layers.0.self_attn.k_proj.weight"][:] = 0
        tensors[LAST][5] = 0
        write_checkpoint(tmp_path / layout, TRILM, tensors)
        assert np.isfinite(Engine.load(tmp_path / layout, num_threads=1).logits([1, 2])).all()


def test_declared_models_without_scales_keep_int8_activations(tmp_path):
    config = {**TRILM, "quantization_config": LLAMA["quantization_config"]}
    write_checkpoint(tmp_path / "hf", config, scaled_tensors(config, "matrix"))
    assert Engine.load(tmp_path / "hf", num_threads=1).spec["activation_levels"] == 127


def refusal(folder, config, tensors):
    with pytest.raises(BitinferError) as caught:
        Engine.load(write_checkpoint(folder, config, tensors))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_weight_of_another_magnitude_makes_a_model_dense(tmp_path, layout):
    tensors = scaled_tensors(TRILM, layout)
    row = np.flatnonzero(tensors[LAST][200, :20])  # of the last group of 32 that has any
    tensors[LAST][200, row[0]] = np.nextafter(tensors[LAST][200, row[0]], np.float16(1))
    assert refusal(tmp_path, TRILM, tensors).startswith(f"{LAST}: expected one magnitude in each")


def test_a_dense_model_is_told_how_far_it_is_from_ternary_and_what_runs_it(tmp_path):
    message = refusal(tmp_path, DENSE, make_tensors(DENSE, form="master")[0])
    assert message.startswith("model.layers.0.self_attn.q_proj.weight: expected one magnitude in")
    assert "got 24 in its first 24 weights (5" in message  # of normal weights: 51 %
    assert "model.safetensors: the model is dense, not ternary: run it with llama.cpp" in message
    assert "'bitinfer convert --ternarize absmean'" in message


def test_masters_of_falcon_e_are_known_by_their_name(tmp_path):
    folder = tmp_path / "Falcon-E-1B-Base-prequantized"
    message = refusal(folder, DENSE, make_tensors(DENSE, form="master")[0])
    assert message.endswith("pack them with 'bitinfer convert --ternarize absmean'")


def test_packed_weights_that_nothing_declares_are_refused(tmp_path):
    message = refusal(tmp_path, DENSE, make_tensors(LLAMA)[0])
    assert message.startswith("config.json: quantization_config: expected one with quant_method")
    assert message.endswith("take config.json from the same source")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_that_are_ternary_are_not_made_so_again(tmp_path, layout):
    folder = write_checkpoint(tmp_path / "hf", TRILM, scaled_tensors(TRILM, layout))
    with pytest.raises(BitinferError, match=r"hf: expected full-precision .* convert it without$"):
        convert(folder, tmp_path / "packed", ternarize="absmean")

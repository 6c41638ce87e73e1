import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints import DENSE, LLAMA, TINY, hf_pack, make_tensors, tiny_checkpoint, write_checkpoint

from bitinfer import _core
from bitinfer.convert import PACKED_FILES, convert
from bitinfer.errors import CheckpointError, PackedFileError
from bitinfer.formats import new_folder
from bitinfer.formats.packed import PACKED_NAME, PackedFile
from bitinfer.formats.safetensors import as_float32

O_PROJ = "model.layers.1.self_attn.o_proj"
ONLINE = {
    **TINY,
    "quantization_config": {**TINY["quantization_config"], "quantization_mode": "online"},
}


def converted(folder, config=TINY, *, packing="i2", head="int8", shards=1, **options):
    """(packed file, stored tensors, ternary matrices)."""
    tensors, ternary = make_tensors(config, **options)
    write_checkpoint(folder / "hf", config, tensors, shards)
    target = convert(folder / "hf", folder / "packed", packing=packing, head=head)
    return PackedFile(target / PACKED_NAME), tensors, ternary


def matrix(file, module):
    data, packing, (n, k) = file.tensor(f"{module}.weight")
    return _core.unpack(data, packing, n, k)


def floats(file, name):
    data, dtype, shape = file.tensor(name)
    return as_float32(data, dtype.upper()).reshape(shape)


def folder_bytes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_golden_vector_of_the_hf_packing():
    i = np.arange(256)
    t = ((7 * i + i // 5) % 3 - 1).astype(np.int8).reshape(8, 32)
    packed = hf_pack(t)
    assert packed.reshape(-1)[:8].tolist() == [132, 17, 70, 24, 97, 132, 17, 70]
    assert hashlib.sha256(packed.tobytes()).hexdigest()[:16] == "58d5d93fb2c09009"
    assert np.array_equal(_core.unpack(_core.pack_hf(packed, 8, "i2"), "i2", 8, 32), t)


@pytest.mark.parametrize("packing", ["i2", "t3", "t5"])
def test_packed_checkpoints_keep_every_weight(tmp_path, packing):
    file, _, ternary = converted(tmp_path, packing=packing)
    assert ternary
    for module, expected in ternary.items():
        assert np.array_equal(matrix(file, module), expected)


def test_unpacked_floats_keep_every_weight(tmp_path):
    file, _, ternary = converted(tmp_path, form="unpacked", dtype=np.float16)
    for module, expected in ternary.items():
        assert np.array_equal(matrix(file, module), expected)


def test_masters_become_ternary_by_their_absolute_mean(tmp_path):
    file, tensors, _ = converted(tmp_path, ONLINE, form="master")
    master = tensors[f"{O_PROJ}.weight"]
    r = np.float32(1) / np.float32(np.abs(master.astype(np.float64)).mean())
    expected = np.clip(np.rint(master * r), -1, 1).astype(np.int8)
    assert np.array_equal(matrix(file, O_PROJ), expected)
    scale = floats(file, f"{O_PROJ}.weight_scale")
    assert np.isclose(scale[0], 1 / r, rtol=2.0**-22)  # the mean's own last bits


def test_full_precision_becomes_ternary_by_its_absolute_mean_where_asked(tmp_path):
    dense = tiny_checkpoint(tmp_path / "dense", DENSE, form="master")
    declared = {**DENSE, "quantization_config": ONLINE["quantization_config"]}
    masters = tiny_checkpoint(tmp_path / "masters", declared, form="master")
    file = PackedFile(convert(dense, tmp_path / "a", ternarize="absmean") / PACKED_NAME)
    same = PackedFile(convert(masters, tmp_path / "b") / PACKED_NAME)
    assert {n: file.tensor(n)[0].tobytes() for n in file} == {
        n: same.tensor(n)[0].tobytes() for n in same
    }
    assert file.header.source["ternarized"] == "absmean"
    assert "ternarized" not in same.header.source


def test_a_scale_of_autobitlinear_multiplies_and_one_of_bitlinear_divides(tmp_path):
    file, tensors, _ = converted(tmp_path / "auto")
    assert floats(file, f"{O_PROJ}.weight_scale")[0] == tensors[f"{O_PROJ}.weight_scale"][0]
    file, tensors, _ = converted(tmp_path / "plain", LLAMA)
    stored = np.float32(tensors[f"{O_PROJ}.weight_scale"][0])
    assert floats(file, f"{O_PROJ}.weight_scale")[0] == np.float32(1) / stored


def test_float_tensors_are_kept_as_they_were(tmp_path):
    file, tensors, _ = converted(tmp_path, dtype=np.float16)
    for name in ("model.embed_tokens.weight", "model.layers.0.mlp.ffn_sub_norm.weight"):
        data, dtype, shape = file.tensor(name)
        assert (dtype, shape) == ("f16", tensors[name].shape)
        assert data.tobytes() == tensors[name].tobytes()


def test_the_int8_head_is_the_rows_rounded_by_their_largest_value(tmp_path):
    file, tensors, _ = converted(tmp_path, LLAMA)
    head = tensors["lm_head.weight"]
    scale = floats(file, "lm_head.weight_scale")
    data, dtype, shape = file.tensor("lm_head.weight")
    codes = data.view(np.int8).reshape(shape)[:, :24]
    assert dtype == "i8"
    assert np.abs(codes).max(axis=1).tolist() == [127] * len(head)
    assert np.abs(codes * scale[:, None] - head).max() <= scale.max() * 0.5001


def test_head_source_keeps_an_untied_head_and_adds_none_to_a_tied_one(tmp_path):
    file, tensors, _ = converted(tmp_path / "untied", LLAMA, head="source")
    assert file.tensor("lm_head.weight")[0].tobytes() == tensors["lm_head.weight"].tobytes()
    assert "lm_head.weight_scale" not in file
    file, _, _ = converted(tmp_path / "tied", TINY, head="source")
    assert "lm_head.weight" not in file


def test_large_tensors_are_read_in_chunks_with_the_same_result(tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    source = tiny_checkpoint(tmp_path / "hf", LLAMA, form="unpacked")
    convert(source, whole, packing="i2")
    monkeypatch.setattr("bitinfer.canonical.CHUNK_BYTES", 1000)
    assert folder_bytes(convert(source, tmp_path / "chunked", packing="i2")) == folder_bytes(whole)


def test_shards_give_the_same_tensors_as_one_file(tmp_path):
    one, _, _ = converted(tmp_path / "one")
    three, _, _ = converted(tmp_path / "three", shards=3)
    assert list(one) == list(three)
    assert all(one.tensor(n)[0].tobytes() == three.tensor(n)[0].tobytes() for n in one)


def test_converting_twice_gives_equal_bytes(tmp_path):
    source = tiny_checkpoint(tmp_path / "hf")
    first = folder_bytes(convert(source, tmp_path / "a", packing="t3"))
    assert folder_bytes(convert(source, tmp_path / "b", packing="t3")) == first


def test_files_of_the_tokenizer_and_config_come_along_and_nothing_else(tmp_path):
    source = tiny_checkpoint(tmp_path / "hf")
    for name in (
        "tokenizer.json",
        "tokenizer.model",
        "generation_config.json",
        "chat_template.jinja",
        "notes.txt",
    ):
        (source / name).write_text(name)
    target = convert(source, tmp_path / "packed")
    found = {path.name for path in target.iterdir()}
    assert found == {
        "config.json",
        "tokenizer.json",
        "tokenizer.model",
        "generation_config.json",
        "chat_template.jinja",
        PACKED_NAME,
    }


def test_source_is_named_without_paths_of_this_machine(tmp_path):
    file, _, _ = converted(tmp_path)
    sha = hashlib.sha256((tmp_path / "hf" / "model.safetensors").read_bytes()).hexdigest()
    expected = {"name": "hf", "revision": None, "sha256": {"model.safetensors": sha}}
    assert file.header.source == expected
    hub = tmp_path / "models--org--tiny" / "snapshots" / "abc123"
    tiny_checkpoint(hub)
    source = PackedFile(convert(hub, tmp_path / "b") / PACKED_NAME).header.source
    assert (source["name"], source["revision"]) == ("org/tiny", "abc123")


def test_progress_grows_to_the_total(tmp_path):
    seen = []
    source = tiny_checkpoint(tmp_path / "hf")
    convert(source, tmp_path / "packed", progress=lambda done, total: seen.append((done, total)))
    done = [count for count, _ in seen]
    assert done == sorted(done)
    assert len({total for _, total in seen}) == 1
    assert seen[-1][0] == seen[-1][1]


def test_a_packed_folder_is_replaced_as_a_whole(tmp_path):
    target = convert(tiny_checkpoint(tmp_path / "a"), tmp_path / "packed")
    (target / "tokenizer.json").write_text("old")
    mapped = PackedFile(target / PACKED_NAME)
    before = mapped.tensor("model.norm.weight")[0].tobytes()
    convert(tiny_checkpoint(tmp_path / "b", seed=1), target)
    assert not (target / "tokenizer.json").exists()
    assert mapped.tensor("model.norm.weight")[0].tobytes() == before
    assert PackedFile(target / PACKED_NAME).tensor("model.norm.weight")[0].tobytes() != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "packed"]


def test_a_link_to_a_packed_folder_stays_a_link(tmp_path):
    real = convert(tiny_checkpoint(tmp_path / "a"), tmp_path / "real")
    (tmp_path / "link").symlink_to(real)
    convert(tiny_checkpoint(tmp_path / "b", seed=1), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert PackedFile(real / PACKED_NAME).header.source["name"] == "b"


@pytest.mark.parametrize("name", ["notes.txt", "config.json"])
def test_a_folder_of_something_else_is_not_replaced(tmp_path, name):
    source = tiny_checkpoint(tmp_path / "hf")
    target = tmp_path / "mine"
    target.mkdir()
    (target / name).write_text("mine")
    with pytest.raises(PackedFileError, match=rf"expected a new or a packed folder.*{name}"):
        convert(source, target)
    assert folder_bytes(target) == {name: b"mine"}


def test_a_checkpoint_is_not_converted_onto_itself(tmp_path):
    source = tiny_checkpoint(tmp_path / "hf")
    before = folder_bytes(source)
    with pytest.raises(PackedFileError, match=r"got one that holds model.safetensors"):
        convert(source, source)
    assert folder_bytes(source) == before


def test_a_target_that_cannot_be_made_is_refused(tmp_path):
    source = tiny_checkpoint(tmp_path / "hf")
    with pytest.raises(PackedFileError, match="expected a folder to write to: create it first"):
        convert(source, tmp_path / "none" / "packed")
    (tmp_path / "file").write_text("")
    with pytest.raises(PackedFileError, match="expected a folder, got a file"):
        convert(source, tmp_path / "file")


def test_a_disk_that_is_too_small_is_refused_before_writing(tmp_path, monkeypatch):
    source = tiny_checkpoint(tmp_path / "hf")
    monkeypatch.setattr(
        new_folder.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1)
    )
    with pytest.raises(PackedFileError, match="MB free on this disk, got 0 MB: make room"):
        convert(source, tmp_path / "packed")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    source = tiny_checkpoint(tmp_path / "hf")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bitinfer.formats.packed.os.fsync", full)
    with pytest.raises(PackedFileError, match="cannot be written: No space left on device"):
        convert(source, tmp_path / "packed")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


@pytest.mark.parametrize("after", [1, 5, 20])
def test_an_interrupt_leaves_nothing_and_the_old_folder_as_it_was(tmp_path, after):
    source = tiny_checkpoint(tmp_path / "hf")
    target = convert(source, tmp_path / "packed")
    before = folder_bytes(target)
    calls = iter(range(1000))

    def interrupt(done, total):
        if next(calls) == after:
            raise KeyboardInterrupt

    for place in (tmp_path / "new", target):
        calls = iter(range(1000))
        with pytest.raises(KeyboardInterrupt):
            convert(source, place, progress=interrupt)
    assert folder_bytes(target) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "packed"]


def test_everything_is_synced_before_the_rename_and_the_rename_after(tmp_path, monkeypatch):
    source = tiny_checkpoint(tmp_path / "hf")
    events = []
    rename, sync = Path.rename, new_folder._sync

    def noting_rename(old, new):
        events.append(("rename", new.name))
        return rename(old, new)

    def noting_sync(path):
        events.append(("sync", path.name.partition(".partial")[0]))
        sync(path)

    monkeypatch.setattr(Path, "rename", noting_rename)
    monkeypatch.setattr(new_folder, "_sync", noting_sync)
    convert(source, tmp_path / "packed")
    *files, folder, renamed, parent = events
    assert sorted(files) == [("sync", PACKED_NAME), ("sync", "config.json")]
    assert folder == ("sync", ".packed")
    assert renamed == ("rename", "packed")
    assert parent == ("sync", tmp_path.name)


def test_a_failed_rename_puts_the_old_folder_back(tmp_path, monkeypatch):
    source = tiny_checkpoint(tmp_path / "hf")
    target = convert(source, tmp_path / "packed")
    before = folder_bytes(target)
    rename = Path.rename

    def fail_once(old, new):
        if ".partial-" in str(old) and not str(old).endswith(".old"):
            raise OSError(5, "Input/output error")
        return rename(old, new)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(PackedFileError, match="Input/output error"):
        convert(source, target)
    assert folder_bytes(target) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "packed"]


def test_an_impossible_code_is_named_and_leaves_nothing(tmp_path):
    tensors, _ = make_tensors(TINY)
    tensors[f"{O_PROJ}.weight"][2, 5] |= 0b1100  # byte row 2 of 6, second quarter: row 8
    write_checkpoint(tmp_path / "hf", TINY, tensors)
    with pytest.raises(CheckpointError) as caught:
        convert(tmp_path / "hf", tmp_path / "packed")
    message = str(caught.value)
    assert message.startswith(f"{O_PROJ}.weight: ")
    assert "row 8" in message
    assert "column 5" in message
    assert "\n" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


@pytest.mark.parametrize("value", [0.5, 2.0, np.nan])
def test_unpacked_floats_that_are_not_ternary_are_named(tmp_path, value):
    tensors, _ = make_tensors(TINY, form="unpacked")
    tensors[f"{O_PROJ}.weight"][3, 7] = value
    write_checkpoint(tmp_path / "hf", TINY, tensors)
    with pytest.raises(CheckpointError, match="row 3, column 7: expected -1, 0 or 1"):
        convert(tmp_path / "hf", tmp_path / "packed")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_masters_that_are_no_numbers_are_named(tmp_path, value):
    tensors, _ = make_tensors(ONLINE, form="master")
    tensors[f"{O_PROJ}.weight"][3, 7] = value
    write_checkpoint(tmp_path / "hf", ONLINE, tensors)
    with pytest.raises(CheckpointError, match=f"{O_PROJ}.weight: .*row 3, column 7"):
        convert(tmp_path / "hf", tmp_path / "packed")


def test_a_wrong_choice_is_a_value_error(tmp_path):
    with pytest.raises(ValueError, match="packing: expected auto, i2, t3, t5, b1, got 'x'"):
        convert(tmp_path, tmp_path / "b", packing="x")
    with pytest.raises(ValueError, match="head: expected int8, source, got 'x'"):
        convert(tmp_path, tmp_path / "b", head="x")


def test_a_packed_folder_is_not_a_source(tmp_path):
    packed = convert(tiny_checkpoint(tmp_path / "hf"), tmp_path / "packed")
    with pytest.raises(CheckpointError, match="got a packed folder: load it as it is"):
        convert(packed, tmp_path / "again")


@pytest.mark.skipif(sys.platform != "linux", reason="reads RssAnon of /proc")
@pytest.mark.parametrize(("form", "mode"), [("packed", "offline"), ("master", "online")])
def test_memory_of_a_conversion_stays_near_one_tensor(tmp_path, form, mode):
    """The short form of benchmarks/convert_memory.py: some 70 MB of checkpoint."""
    quantization = {**TINY["quantization_config"], "quantization_mode": mode}
    shape = {
        "hidden_size": 1024,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "head_dim": 128,
        "vocab_size": 12000,
    }
    layers = 8 if form == "packed" else 2
    config = {**TINY, **shape, "num_hidden_layers": layers, "quantization_config": quantization}
    source = tiny_checkpoint(tmp_path / "hf", config, form=form)
    script = Path(__file__).parents[1] / "benchmarks" / "convert_memory.py"
    command = [sys.executable, str(script), "--measure", str(source), str(tmp_path / "packed")]
    done = subprocess.run(command, capture_output=True, check=True, text=True, cwd=tmp_path)
    memory = json.loads(done.stdout)
    assert (source / "model.safetensors").stat().st_size > 60e6
    largest = 12000 * 1024 * 4
    assert memory["peak_bytes"] - memory["before_bytes"] < 1.3 * largest
    assert memory["peak_bytes"] < 1.3 * largest + 200e6


def test_names_of_packed_files_are_all_ours():
    assert set(PACKED_FILES) >= {PACKED_NAME, "config.json", "tokenizer.json"}

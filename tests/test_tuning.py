"""What `bitinfer tune` kept: it sets the defaults, what is given wins, and nothing wrong hurts."""

import dataclasses
import json
import os
import warnings

import numpy as np
import pytest
from checkpoints import TINY, tiny_checkpoint

from bitinfer import runtime, tuning
from bitinfer.convert import convert
from bitinfer.cpu_count import physical_cores
from bitinfer.engine import Engine
from bitinfer.errors import ConfigError
from bitinfer.tuning import Tuned

IDS = [1, 7, 30, 2, 49, 0]


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A place for the file."""
    path = tmp_path / "cache" / "tuning.json"
    monkeypatch.setenv("BITINFER_TUNING", str(path))
    monkeypatch.delenv("BITINFER_NUM_THREADS", raising=False)
    monkeypatch.setattr(runtime, "_noted", set())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("tuning")
    return convert(tiny_checkpoint(root / "hf", TINY), root / "packed", packing="i2")


def tuned_for(folder, **changes):
    engine = Engine.load(folder)
    return Tuned(
        **{
            "model": engine.model_key,
            "name": "tiny",
            "parameters": tuning.num_parameters(engine.spec),
            "isa": runtime.active_isa(),
            "cores": physical_cores(),
            "packing": "t3",
            "gemv": "dot",
            "weights": "copy",
            "ffn": "dense",
            "threads": 5,
            "quiet_threads": 3,
            "tokens_per_s": 12.5,
            "date": "2026-11-22T00:00:00+00:00",
            **changes,
        }
    )


def test_what_was_tuned_is_the_default(folder, kept):
    plain = Engine.load(folder)
    assert plain.tuned is None
    tuned = tuned_for(folder)
    assert tuning.keep(tuned) == kept
    engine = Engine.load(folder)
    assert engine.tuned == tuned
    assert (engine.packing, engine.weights, engine.num_threads) == ("t3", "copy", 5)
    assert engine.gemv_family == "dot"
    assert np.array_equal(engine.logits(IDS), plain.logits(IDS))


def test_a_sparse_ffn_is_taken_by_the_model_that_was_tuned_and_where_there_is_room(
    folder, kept, monkeypatch
):
    tuned = tuned_for(folder, ffn="sparse")
    tuning.keep(tuned)
    engine = Engine.load(folder)
    assert engine.ffn == "sparse"
    assert np.array_equal(engine.logits(IDS), Engine.load(folder, ffn="dense").logits(IDS))
    with monkeypatch.context() as patch:
        patch.setattr("bitinfer.engine.has_room", lambda num_bytes: False)
        assert Engine.load(folder).ffn == "dense"
    tuning.clear()
    tuning.keep(dataclasses.replace(tuned, model="another"))
    assert Engine.load(folder).tuned is not None
    assert Engine.load(folder).ffn == "dense"


@pytest.mark.parametrize("gemv", ["addsub", "dot"])
def test_either_gemv_can_be_tuned(folder, kept, gemv):
    tuning.keep(tuned_for(folder, gemv=gemv, weights="mmap", packing="i2"))
    engine = Engine.load(folder)
    assert engine.gemv_family == gemv
    assert engine.weights == "mmap"


def test_what_is_given_wins(folder, kept, monkeypatch):
    tuning.keep(tuned_for(folder))
    engine = Engine.load(folder, packing="i2", weights="mmap", num_threads=2)
    assert (engine.packing, engine.weights, engine.num_threads) == ("i2", "mmap", 2)
    monkeypatch.setenv("BITINFER_NUM_THREADS", "4")
    assert Engine.load(folder).num_threads == 4


def test_a_forced_gemv_wins(folder, kept):
    tuning.keep(tuned_for(folder, gemv="dot"))
    engine = Engine.load(folder)
    try:
        runtime._core.set_gemv("addsub")
        assert engine.gemv_family == "addsub"
    finally:
        runtime._core.set_gemv("auto")


def test_converting_and_raw_checkpoints_follow_it_too(folder, kept, tmp_path):
    tuning.keep(tuned_for(folder))
    raw = tiny_checkpoint(tmp_path / "hf", TINY)
    assert Engine.load(raw).packing == "t3"
    assert Engine.load(convert(raw, tmp_path / "made"), weights="mmap").packing == "t3"


def test_only_models_of_about_the_same_size_share_a_choice(folder, kept):
    own = tuned_for(folder)
    nearer = dataclasses.replace(own, model="b", parameters=2 * own.parameters, threads=7)
    far = dataclasses.replace(own, model="c", parameters=5 * own.parameters, threads=9)
    tuning.keep(far)
    assert Engine.load(folder).tuned is None
    tuning.keep(nearer)
    assert Engine.load(folder).tuned == nearer
    tuning.keep(own)
    assert Engine.load(folder).tuned == own


def test_a_choice_holds_for_its_row_and_its_number_of_cores(folder, kept, monkeypatch):
    tuning.keep(tuned_for(folder))
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "physical_cores", lambda: physical_cores() + 1)
        assert Engine.load(folder).tuned is None
    tuning.keep(tuned_for(folder, isa="another"))
    assert [t.isa for t in tuning.read()] == [runtime.active_isa(), "another"]


def test_tuning_again_replaces_the_choice(folder, kept):
    tuning.keep(tuned_for(folder))
    tuning.keep(tuned_for(folder, threads=4))
    (only,) = tuning.read()
    assert only.threads == 4
    assert [p.name for p in kept.parent.iterdir()] == [kept.name]


def test_without_room_for_a_copy_the_file_is_mapped(folder, kept, monkeypatch):
    tuning.keep(tuned_for(folder, packing="i2"))
    monkeypatch.setattr("bitinfer.loading.has_room", lambda num_bytes: num_bytes < 0)
    assert Engine.load(folder).weights == "mmap"


def changed(**changes):
    return lambda found: json.dumps({**found, **changes})


def changed_entry(**changes):
    def change(found):
        return json.dumps({**found, "models": [{**found["models"][0], **changes}]})

    return change


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda found: "{", "is damaged"),
        (lambda found: "[]", "is damaged"),
        (lambda found: json.dumps(found)[:-20], "is damaged"),
        (lambda found: json.dumps(found) + " " * (1 << 20), "is damaged (too large)"),
        (lambda found: "\udcff", "is damaged"),
        (changed(format_version=3), "is of a newer bitinfer"),
        (changed(format_version="1"), "is of an unknown version"),
        (changed(cpu="Pentium"), "is of another CPU"),
        (changed(isas=["scalar"]), "is of another CPU"),
        (changed(build="0.0.1 00000000"), "is of another build of bitinfer"),
        (changed(models=None), "is damaged"),
        (changed(models=[3]), "is damaged"),
        (changed(models=[{}]), "is damaged ('model')"),
        (changed_entry(threads=0), "is damaged (threads: 0)"),
        (changed_entry(threads=10_000), "is damaged (threads: 10000)"),
        (changed_entry(threads=True), "is damaged (threads: True)"),
        (changed_entry(quiet_threads=6), "is damaged"),
        (changed_entry(packing="t9"), "is damaged (packing: t9)"),
        (changed_entry(gemv="fast"), "is damaged (gemv: fast)"),
        (changed_entry(weights="disk\n"), "is damaged (weights: disk?)"),
        (changed_entry(ffn="thin"), "is damaged (ffn: thin)"),
        (changed_entry(tokens_per_s="many"), "is damaged (tokens_per_s: many)"),
    ],
)
def test_a_file_that_cannot_be_used_is_noticed_once_and_mended(folder, kept, damage, expected):
    tuned = tuned_for(folder)
    tuning.keep(tuned)
    text = damage(json.loads(kept.read_text()))
    kept.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.warns(RuntimeWarning) as caught:
        engine = Engine.load(folder)
    (notice,) = {str(warning.message) for warning in caught}
    assert expected in notice
    assert str(kept) in notice
    assert "not used" in notice
    assert "bitinfer tune" in notice
    assert "\n" not in notice
    assert engine.tuned is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Engine.load(folder)
    tuning.keep(tuned)
    assert Engine.load(folder).tuned == tuned


def test_a_folder_in_place_of_the_file_is_a_notice_and_cannot_be_replaced(folder, kept):
    tuned = tuned_for(folder)
    kept.mkdir(parents=True)
    with pytest.warns(RuntimeWarning, match="cannot be read"):
        Engine.load(folder)
    for act in (lambda: tuning.keep(tuned), tuning.clear):
        with pytest.raises(ConfigError, match="expected a file at"):
            act()


def test_an_empty_file_is_nothing_tuned_and_a_device_is_left_alone(folder, kept, monkeypatch):
    tuned = tuned_for(folder)
    monkeypatch.setenv("BITINFER_TUNING", os.devnull)
    assert tuning.read() == []
    with pytest.raises(ConfigError, match="expected a file at"):
        tuning.keep(tuned)


def test_a_place_that_cannot_be_written_is_an_error(folder, kept):
    tuned = tuned_for(folder)
    kept.parent.write_text("a file in place of the folder")
    with pytest.raises(ConfigError, match=r"tuning\.json cannot be written: "):
        tuning.keep(tuned)


def test_clearing_says_whether_there_was_something(folder, kept):
    assert tuning.clear() is False
    tuning.keep(tuned_for(folder))
    assert tuning.clear() is True
    assert not kept.exists()


def test_the_usual_place_is_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("BITINFER_TUNING")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tuning.tuning_path().name == "tuning.json"
    assert "bitinfer" in str(tuning.tuning_path())

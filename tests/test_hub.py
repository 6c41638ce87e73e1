"""Pulling from a hub on this machine: what is fetched, packed, kept, mended and removed."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from checkpoints import TINY
from fake_hub import COMMIT, REPO, WEIGHTS, FakeHub, Steps, model_files, partial, silent
from huggingface_hub import constants

from bitinfer.errors import CheckpointError, HubError
from bitinfer.hub.inventory import find_kept, list_models, remove
from bitinfer.hub.names import ModelName, known_models, parse_name
from bitinfer.hub.pull import open_model, pull
from bitinfer.hub.verify import verify
from bitinfer.model import Model
from bitinfer.model_folder import find_model

NAME = ModelName(REPO)


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


# Names


@pytest.mark.parametrize(
    ("text", "repo", "revision"),
    [
        ("owner/name", "owner/name", "main"),
        ("owner/na.me-1_b@v1.0", "owner/na.me-1_b", "v1.0"),
        ("owner/name@refs/pr/1", "owner/name", "refs/pr/1"),
        ("2b4t", "microsoft/bitnet-b1.58-2B-4T", "main"),
        ("falcon-e-1b@prequantized", "tiiuae/Falcon-E-1B-Instruct", "prequantized"),
    ],
)
def test_a_name_is_understood(text, repo, revision):
    assert parse_name(text) == ModelName(repo, revision)


@pytest.mark.parametrize(
    "text",
    ["", "name", "/name", "a/b/c", "../a", "a/..", "a/b@", "a/b@../x", "a--b/c", "a/b c", "a/b\n"],
)
def test_what_can_be_no_name_is_none(text):
    assert parse_name(text) is None


def test_known_models_have_the_sizes_that_are_on_record():
    known = known_models()
    # The bf16 file of 4,825,679,400 bytes has a header of 38,440 before the weights.
    assert known["2b4t-bf16"].download_bytes == 4_825_679_400 - 38_440
    # 2-bit weights and bf16 for the rest.
    assert known["2b4t"].download_bytes == 521_011_200 + 2 * (2_412_820_480 - 2_084_044_800)
    assert known["falcon3-3b"].memory_bytes is None
    for short, layers, hidden, inner in (
        ("bitnet-large", 24, 1536, 4096),
        ("bitnet-xl", 24, 2048, 5460),
        ("bitnet-3b", 26, 3200, 8640),
    ):
        weights = layers * (4 * hidden * hidden + 3 * hidden * inner)
        assert known[short].ternary_weights == weights
        assert known[short].download_bytes is None
    for short, model in known.items():
        assert parse_name(short) == parse_name(model.repo), short


def test_a_name_that_is_no_model_says_what_may_stand_there():
    with pytest.raises(CheckpointError, match="owner/name on the hub"):
        find_model("no-such")


# Pulling


def test_a_pulled_model_is_the_one_on_the_hub(hub, hub_files):
    with (
        Model.load(REPO, num_threads=1) as pulled,
        Model.load(hub_files[0], num_threads=1) as local,
    ):
        ids = [5, 6, 7, 8]
        assert np.array_equal(pulled.logits(ids), local.logits(ids))
        assert pulled.path.name == "tiny"


def test_other_programs_find_the_files_in_the_hubs_cache(hub, hub_files):
    from huggingface_hub import hf_hub_download

    pull(NAME, silent)
    for name, content in hub_files[1].items():
        found = hf_hub_download(REPO, name, local_files_only=True)
        assert Path(found).read_bytes() == content


def test_a_second_start_asks_nobody_and_reads_nothing_again(hub):
    first = open_model(NAME, silent)
    hub.requests.clear()
    steps = Steps()
    assert open_model(NAME, steps) == first
    assert hub.requests == []
    assert steps == []


def test_a_second_pull_fetches_nothing_that_is_there(hub):
    pull(NAME, silent)
    hub.requests.clear()
    pull(NAME, silent)
    assert [path for path, _ in hub.requests] == [f"/api/models/{REPO}/revision/main"]


def test_a_pull_takes_what_is_new_and_shares_what_is_not(hub, hub_files, tmp_path):
    old = pull(NAME, silent)
    hub.files |= model_files(tmp_path / "new", seed=1)
    hub.commit = COMMIT[::-1]
    hub.requests.clear()
    new = pull(NAME, silent)
    assert new != old
    assert hub.fetched(WEIGHTS) == [None]
    assert hub.fetched("tokenizer.json") == []
    assert find_kept(NAME).record.commit == hub.commit


def test_revisions_are_kept_apart(hub):
    pull(NAME, silent)
    pull(ModelName(REPO, "v1"), silent)
    assert sorted(kept.record.revision for kept in list_models()) == ["main", "v1"]


def test_progress_counts_all_bytes_of_the_download_then_of_the_packing(hub, hub_files):
    steps = Steps()
    pull(NAME, steps)
    total = sum(map(len, hub_files[1].values()))
    assert [s[0] for s in steps] == sorted(s[0] for s in steps)  # download, pack
    downloads = [step for step in steps if step[0] == "download"]
    assert downloads[-1] == ("download", total, total)
    assert [s[1] for s in downloads] == sorted(s[1] for s in downloads)
    assert steps[-1][1] == steps[-1][2]


def test_shards_are_pulled(hub, tmp_path):
    from checkpoints import make_tensors, write_checkpoint

    config = {**TINY, "vocab_size": 4096}
    folder = write_checkpoint(tmp_path / "shards", config, make_tensors(config)[0], shards=3)
    hub.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    Model.load(REPO, num_threads=1).close()


def test_only_what_is_needed_is_fetched(hub):
    hub.files |= {"README.md": b"text", "pytorch_model.bin": b"pickle", "original/x": b"y"}
    pull(NAME, silent)
    assert not any("README" in path or "bin" in path for path, _ in hub.requests)


def test_a_token_is_sent(hub, monkeypatch):
    hub.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pull(NAME, silent)


# Cut off


def test_a_cut_connection_goes_on_where_it_stopped(hub, hub_files):
    hub.stop_at = [200_000]
    pull(NAME, silent)
    first, second = hub.fetched(WEIGHTS)
    assert first is None
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 200_000
    assert verify(find_kept(NAME).record, silent) == []


def test_a_pull_goes_on_where_one_before_gave_up(hub):
    hub.stop_at = [200_000] * 20
    with pytest.raises(HubError, match=rf"{REPO}: {WEIGHTS}: the connection .* failed .*goes on"):
        pull(NAME, silent)
    assert find_kept(NAME).state == "partial"
    (left,) = partial()
    size = left.stat().st_size
    assert size > 0
    hub.stop_at.clear()
    hub.requests.clear()
    pull(NAME, silent)
    assert hub.fetched(WEIGHTS) == [f"bytes={size}-"]
    assert partial() == []


def test_a_server_that_begins_anew_is_no_harm(hub, hub_files, monkeypatch):
    hub.stop_at = [200_000] * 20
    with pytest.raises(HubError):
        pull(NAME, silent)
    hub.stop_at.clear()
    (left,) = partial()
    left.write_bytes(left.read_bytes() + bytes(len(hub_files[1][WEIGHTS])))  # longer than the file
    pull(NAME, silent)
    assert hub.fetched(WEIGHTS)[-1] is None
    assert verify(find_kept(NAME).record, silent) == []


CHILD = """
import sys
from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = 10_000
from bitinfer.hub.names import ModelName
from bitinfer.hub.pull import pull
def report(step, done, total):
    print(step, done, flush=True)
print("packed", pull(ModelName("owner/tiny"), report))
"""


def start_child(hub: FakeHub) -> subprocess.Popen:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_CACHE": constants.HF_HUB_CACHE,
        "HF_HUB_OFFLINE": "0",
    }
    command = [sys.executable, "-c", CHILD]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_after_kill_9_in_the_middle_a_pull_goes_on(hub, hub_files):
    released = threading.Event()
    hub.hold = released.wait
    small = sum(len(c) for name, c in hub_files[1].items() if name != WEIGHTS)
    with start_child(hub) as child:
        for line in child.stdout:
            if int(line.split()[1]) > small + 10_000:
                break
        child.send_signal(signal.SIGKILL)
    released.set()
    (left,) = partial()
    size = left.stat().st_size
    hub.requests.clear()
    folder = pull(NAME, silent)
    assert size >= 10_000
    assert hub.fetched(WEIGHTS) == [f"bytes={size}-"]
    Model.load(folder, num_threads=1).close()


def test_a_conversion_that_was_killed_leaves_nothing_behind(hub):
    folder = pull(NAME, silent)
    find_kept(NAME).record.digests_path.unlink()  # written last
    left = folder.with_name(f".{folder.name}.partial-0badcafe")
    left.mkdir()
    hub.requests.clear()
    assert open_model(NAME, silent) == folder
    assert not left.exists()
    assert hub.requests == []


def test_two_pulls_at_once_fetch_once(hub):
    released = threading.Event()
    hub.hold = released.wait
    steps = []

    def report(step: str, done: int, total: int) -> None:
        steps.append(step)
        released.set()

    with start_child(hub) as other:
        assert other.stdout.readline().startswith("download")
        folder = pull(NAME, report)
        assert other.communicate()[0].splitlines()[-1] == f"packed {folder}"
    assert steps == ["wait"]
    assert hub.fetched(WEIGHTS) == [None]


# Offline


def test_offline_a_pulled_model_is_there_and_another_is_not(hub, monkeypatch):
    folder = pull(NAME, silent)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_model(REPO) == folder
    with pytest.raises(
        HubError, match=r"owner/tiny@v2: cannot be fetched while HF_HUB_OFFLINE is set"
    ):
        find_model(f"{REPO}@v2")


def test_offline_a_model_that_another_program_pulled_is_packed(hub, tmp_path, monkeypatch):
    pull(NAME, silent)
    shutil.rmtree(tmp_path / "bitinfer")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    Model.load(REPO, num_threads=1).close()
    assert hub.requests == []


def test_files_that_describe_embeddings_are_pulled_with_their_folder(hub, tmp_path, monkeypatch):
    hub.files["modules.json"] = b"[]"
    hub.files["1_Pooling/config.json"] = b'{"pooling_mode_lasttoken": true}'
    hub.files["2_Dense/config.json"] = b"{}"
    folder = pull(NAME, silent)
    assert (folder / "1_Pooling" / "config.json").read_bytes().startswith(b'{"pooling')
    assert not (folder / "2_Dense").exists()
    assert verify(find_kept(NAME).record, silent) == []
    (folder / "1_Pooling" / "config.json").write_bytes(b"{}")
    assert [damage.path.parent.name for damage in verify(find_kept(NAME).record, silent)] == [
        "1_Pooling"
    ]
    shutil.rmtree(tmp_path / "bitinfer")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert (open_model(NAME, silent) / "1_Pooling" / "config.json").stat().st_size > 2


# What is kept


def test_verify_names_a_damaged_file_and_a_checked_pull_mends_it(hub):
    folder = pull(NAME, silent)
    record = find_kept(NAME).record
    assert verify(record, silent) == []
    for path in (folder / "tokenizer.json", Path(constants.HF_HUB_CACHE)):
        blob = path if path.is_file() else next(path.rglob("model.safetensors")).resolve()
        content = bytearray(blob.read_bytes())
        content[100] ^= 1
        blob.write_bytes(content)
    found = {(damage.path.name, damage.source) for damage in verify(record, silent)}
    assert found == {("tokenizer.json", None), (WEIGHTS, WEIGHTS)}
    hub.requests.clear()
    pull(NAME, silent, check=True)
    assert hub.fetched(WEIGHTS) == [None]
    assert hub.fetched("tokenizer.json") == []
    assert verify(find_kept(NAME).record, silent) == []


def test_remove_leaves_nothing(hub, tmp_path):
    pull(NAME, silent)
    remove(NAME, silent)
    assert list_models() == []
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {"owner--tiny.lock", ".gitignore"}
    with pytest.raises(HubError, match="not on this disk"):
        remove(NAME, silent)


def test_remove_keeps_what_another_revision_needs(hub):
    pull(NAME, silent)
    folder = pull(ModelName(REPO, "v1"), silent)
    remove(NAME, silent)
    assert verify(find_kept(ModelName(REPO, "v1")).record, silent) == []
    Model.load(folder, num_threads=1).close()


def test_a_cut_off_download_can_be_removed(hub):
    hub.stop_at = [200_000] * 20
    with pytest.raises(HubError):
        pull(NAME, silent)
    remove(NAME, silent)
    assert partial() == []


def test_packing_again_gives_the_same_bytes(hub, tmp_path):
    before = digests(pull(NAME, silent))
    remove(NAME, silent)
    assert digests(pull(NAME, silent)) == before

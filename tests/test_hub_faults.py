"""What goes wrong with a hub: one line each, and nothing wrong is kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fake_hub import COMMIT, REPO, WEIGHTS, partial, silent
from huggingface_hub import constants

from bitinfer.errors import ConfigError, HubError
from bitinfer.hub.names import ModelName
from bitinfer.hub.pull import pull
from bitinfer.model_folder import find_model

NAME = ModelName(REPO)
REPO_NOT_FOUND = {"X-Error-Code": "RepoNotFound"}


def test_a_wrong_digest_is_refused_and_fetched_anew(hub, hub_files):
    content = bytearray(hub_files[1][WEIGHTS])
    content[-1] ^= 1
    hub.sent[WEIGHTS] = bytes(content)
    with pytest.raises(HubError, match=rf"{WEIGHTS}: expected SHA-256 .*'bitinfer pull {REPO}'"):
        pull(NAME, silent)
    assert partial() == []
    hub.sent.clear()
    pull(NAME, silent)


def test_a_wrong_digest_of_a_small_file_is_refused(hub, hub_files):
    hub.sent["config.json"] = hub_files[1]["config.json"].replace(b"50", b"51", 1).swapcase()
    with pytest.raises(HubError, match=r"config\.json: expected git SHA-1"):
        pull(NAME, silent)


@pytest.mark.parametrize("change", [-100, 100])
def test_a_wrong_size_is_refused(hub, hub_files, change):
    content = hub_files[1][WEIGHTS]
    hub.sent[WEIGHTS] = content[:change] if change < 0 else content + bytes(change)
    got = len(content) - 100 if change < 0 else "more"
    with pytest.raises(HubError, match=rf"{WEIGHTS}: expected {len(content)} bytes, got {got}"):
        pull(NAME, silent)
    assert partial() == []


DESCRIPTION, FILE = "/api/models", f"{COMMIT}/config.json"


@pytest.mark.parametrize(
    ("path", "status", "headers", "parts"),
    [
        (DESCRIPTION, 401, REPO_NOT_FOUND, ["no such model", "HF_TOKEN"]),
        (DESCRIPTION, 401, {}, ["does not accept the token", "HF_TOKEN"]),
        (FILE, 403, {"X-Error-Code": "GatedRepo"}, ["accept the terms", REPO, "HF_TOKEN"]),
        (DESCRIPTION, 404, REPO_NOT_FOUND, ["no such model", "check the name"]),
        (DESCRIPTION, 404, {"X-Error-Code": "RevisionNotFound"}, ["no revision 'main'"]),
        (DESCRIPTION, 429, {"Retry-After": "77"}, ["too many requests", "wait 77 s", "HF_TOKEN"]),
        (FILE, 429, {"Retry-After": "77"}, ["too many requests", "wait 77 s", "HF_TOKEN"]),
        (FILE, 503, {}, ["503", "later"]),
    ],
)
def test_a_refusal_says_what_to_do(hub, path, status, headers, parts):
    hub.refuse, hub.refuse_path = (status, headers), path
    with pytest.raises(HubError) as error:
        pull(NAME, silent)
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(REPO)
    assert all(part in text for part in parts), text


def test_a_mistyped_path_is_told_as_one_that_the_hub_does_not_know_either(hub):
    hub.refuse, hub.refuse_path = (404, REPO_NOT_FOUND), DESCRIPTION
    with pytest.raises(HubError) as error:
        find_model("out/falcn")
    text = str(error.value)
    assert "\n" not in text
    assert "no such model" in text
    assert f"if a folder is meant: there is no 'out/falcn' in {Path.cwd()}, check the path" in text


def test_a_hub_that_does_not_answer_is_named(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"connection to http://127\.0\.0\.1:9 failed .*HF_ENDPOINT"):
        pull(NAME, silent)


def test_a_full_disk_is_told_before_the_download(hub, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1000))
    with pytest.raises(HubError, match=r"MB free in .* got 0 MB: make room, or set HF_HOME"):
        pull(NAME, silent)
    assert not any("/cdn/" in path for path, _ in hub.requests)


def test_a_disk_that_fills_up_keeps_what_came(hub, monkeypatch):
    from bitinfer.hub import download

    write = download._Partial.write

    def full(partial, chunk):
        if partial.size > 100_000:
            raise OSError(28, "No space left on device")
        return write(partial, chunk)

    monkeypatch.setattr(download._Partial, "write", full)
    with pytest.raises(HubError, match="the disk is full: make room"):
        pull(NAME, silent)
    assert partial()[0].stat().st_size > 100_000


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"pytorch_model.bin": b""}, "got PyTorch pickle weights only"),
        ({"README.md": b""}, "got no weights"),
    ],
)
def test_a_model_in_another_form_is_refused(hub, files, text):
    hub.files = {"config.json": b"{}", **files}
    with pytest.raises(HubError, match=text):
        pull(NAME, silent)
    assert len(hub.requests) == 1


def test_an_unknown_family_is_refused_before_its_weights_come(hub):
    config = hub.files["config.json"].replace(b"BitNetForCausalLM", b"MambaForCausalLM")
    hub.files["config.json"] = config
    with pytest.raises(ConfigError, match="MambaForCausalLM"):
        pull(NAME, silent)
    assert hub.fetched(WEIGHTS) == []


@pytest.mark.parametrize("commit", ["", "../../../../tmp", "main"])
def test_a_hub_that_lies_about_the_commit_is_refused(hub, commit):
    hub.commit = commit
    with pytest.raises(HubError, match="commit: expected 40 hex digits"):
        pull(NAME, silent)

"""What the hub says of a model: its commit, its licence, and the files that bitinfer takes."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from bitinfer.errors import HubError
from bitinfer.formats.gguf_files import ENDING as GGUF_ENDING, choose_gguf, is_named_dense
from bitinfer.formats.safetensors import INDEX_NAME, SINGLE_NAME
from bitinfer.formats.source import SIDE_FILES
from bitinfer.hub.faults import told_plainly
from bitinfer.hub.names import ModelName
from bitinfer.hub.records import HubFile, Record

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_ENDING = ".safetensors"
_TIMEOUT_S = 30.0
_SHOWN_FILES = 4  # in messages


def ask_hub(name: ModelName) -> Record:
    """Ask the hub what a model is now.

    Raises:
        HubError: it is not there or not for us, the hub is not reached, or its weights are in a
            form that bitinfer does not read.
    """
    from huggingface_hub import HfApi

    with told_plainly(name):
        info = HfApi(library_name="bitinfer").model_info(
            name.repo, revision=name.revision, files_metadata=True, timeout=_TIMEOUT_S
        )
    offered = {sibling.rfilename: sibling for sibling in info.siblings or []}
    wanted = taken(name, offered)
    try:
        files = {file: _described(offered[file]) for file in wanted}
        return Record(name.repo, name.revision, info.sha or "", _licence(info), files, name.file)
    except HubError as cause:
        raise HubError(f"{name}: the hub's answer: {cause}") from None


def _described(sibling: RepoSibling) -> HubFile:
    """Size and digest as the hub states them; `HubFile` checks them."""
    digest: Any = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    size: Any = sibling.size
    return HubFile(size, digest)


def taken(name: ModelName, offered: Collection[str]) -> list[str]:
    """Names of the files to fetch, the weights last.

    Args:
        name: The model.
        offered: Names of its files.

    Raises:
        HubError: there are no weights that bitinfer reads, or it is not clear which.
    """
    files = sorted(filter(_is_taken, offered), key=lambda file: (file.endswith(_ENDING), file))
    if SINGLE_NAME in files:  # then the reader passes over shards
        files = [file for file in files if file != INDEX_NAME and not _SHARD.fullmatch(file)]
    if name.file is not None or not any(file.endswith(_ENDING) for file in files):
        return [_gguf(name, offered)]
    if "config.json" not in files:
        raise HubError(f"{name}: expected a config.json on the hub, got none: it is no model")
    return files


def _is_taken(file: str) -> bool:
    return file in (*SIDE_FILES, INDEX_NAME, SINGLE_NAME) or _SHARD.fullmatch(file) is not None


def _gguf(name: ModelName, offered: Collection[str]) -> str:
    """The GGUF file that is meant; all that bitinfer needs is in it."""
    there = sorted(file for file in offered if file.endswith(GGUF_ENDING) and "/" not in file)
    asked = name.file or ""
    found = [file for file in there if file == asked]
    found = found or choose_gguf(file for file in there if asked.lower() in file.lower())
    if not there:
        raise _no_weights(name, offered)
    if len(found) != 1:
        files = ", ".join((found or there)[:_SHOWN_FILES])
        example = ModelName(name.repo, name.revision, (found or there)[0])
        raise HubError(
            f"{name}: expected one GGUF file of a ternary type, got {files}: name the one to take,"
            f" as {example}"
        )
    if is_named_dense(found[0]):
        raise HubError(
            f"{name}: expected ternary weights, got {found[0]}, which by its name is not ternary:"
            " llama.cpp runs it"
        )
    return found[0]


def _no_weights(name: ModelName, offered: Collection[str]) -> HubError:
    kinds = {"PyTorch pickle": ".bin", "safetensors of another name": _ENDING}
    for kind, ending in kinds.items():
        for file in sorted(offered):
            if file.endswith(ending):
                return HubError(
                    f"{name}: expected {SINGLE_NAME}, got {kind} weights only ({file}), which are"
                    " not read: take the model's safetensors or GGUF repository"
                )
    return HubError(f"{name}: expected {SINGLE_NAME} on the hub, got no weights: it is no model")


def _licence(info: ModelInfo) -> str | None:
    """The licence as the hub's tags name it."""
    named = [tag.partition(":")[2] for tag in info.tags or [] if tag.startswith("license:")]
    return named[0][:80] if named else None

"""What the hub says of a model: its commit, its licence, and the files that bitinfer takes."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from bitinfer.errors import HubError
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
    taken = _taken(name, offered)
    try:
        files = {file: _described(offered[file]) for file in taken}
        return Record(name.repo, name.revision, info.sha or "", _licence(info), files)
    except HubError as cause:
        raise HubError(f"{name}: the hub's answer: {cause}") from None


def _described(sibling: RepoSibling) -> HubFile:
    """Size and digest as the hub states them; `HubFile` checks them."""
    digest: Any = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    size: Any = sibling.size
    return HubFile(size, digest)


def is_taken(file: str) -> bool:
    """Whether bitinfer takes a file of this name."""
    return file in (*SIDE_FILES, INDEX_NAME, SINGLE_NAME) or _SHARD.fullmatch(file) is not None


def _taken(name: ModelName, offered: Collection[str]) -> list[str]:
    """Names of the files to fetch, the weights last."""
    taken = sorted(filter(is_taken, offered), key=lambda file: (file.endswith(_ENDING), file))
    if SINGLE_NAME in taken:  # then the reader passes over shards
        taken = [file for file in taken if file != INDEX_NAME and not _SHARD.fullmatch(file)]
    if not any(file.endswith(_ENDING) for file in taken):
        raise _no_weights(name, offered)
    if "config.json" not in taken:
        raise HubError(f"{name}: expected a config.json on the hub, got none: it is no model")
    return taken


def _no_weights(name: ModelName, offered: Collection[str]) -> HubError:
    kinds = {"GGUF": ".gguf", "PyTorch pickle": ".bin", "safetensors of another name": _ENDING}
    for kind, ending in kinds.items():
        for file in sorted(offered):
            if file.endswith(ending):
                return HubError(
                    f"{name}: expected {SINGLE_NAME}, got {kind} weights only ({file}), which are"
                    " not read yet: take the model's safetensors repository"
                )
    return HubError(f"{name}: expected {SINGLE_NAME} on the hub, got no weights: it is no model")


def _licence(info: ModelInfo) -> str | None:
    """The licence as the hub's tags name it."""
    named = [tag.partition(":")[2] for tag in info.tags or [] if tag.startswith("license:")]
    return named[0][:80] if named else None

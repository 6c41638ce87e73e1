"""What went wrong with the hub, in one line each, with what to do about it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from bitinfer.errors import BitinferError, HubError
from bitinfer.hub.names import ModelName
from bitinfer.json_file import shown

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def told_plainly(name: ModelName, file: str | None = None) -> Iterator[None]:
    """Turn what huggingface_hub and the network below it raise into a `HubError`.

    Their classes differ from version to version (requests, httpx), so every error that is none of
    ours is taken to be theirs.

    Args:
        name: The model.
        file: The file that is fetched; None: the model's description.
    """
    try:
        yield
    except BitinferError:
        raise
    except Exception as cause:
        what = f"{name}: {file}" if file else str(name)
        raise HubError(f"{what}: {_reason(cause, name)}") from None


def _reason(cause: Exception, name: ModelName) -> str:
    from huggingface_hub import errors

    again = f"'bitinfer pull {name}'"
    if isinstance(cause, errors.OfflineModeIsEnabled):
        return f"cannot be fetched while HF_HUB_OFFLINE is set: unset it, then {again}"
    if isinstance(cause, errors.HfHubHTTPError):
        return _refusal(cause, name, again)
    if isinstance(cause, OSError) and cause.errno in _DISK_FULL:
        return (
            f"the disk is full: make room, or set HF_HOME to a folder elsewhere; then {again} goes"
            " on where it stopped"
        )
    if isinstance(cause, OSError) and isinstance(cause, PermissionError | IsADirectoryError):
        return f"{cause.filename} cannot be written ({cause.strerror}): set HF_HOME to your folder"
    return (
        f"the connection to {_endpoint()} failed ({_first_line(cause)}): check the network and"
        f" HF_ENDPOINT, then {again} goes on where it stopped"
    )


def _refusal(cause: Exception, name: ModelName, again: str) -> str:
    from huggingface_hub import errors

    response = getattr(cause, "response", None)
    status = response.status_code if response is not None else 0
    wait_s = response.headers.get("Retry-After") if response is not None else None
    if isinstance(cause, errors.GatedRepoError) or status == 403:
        return (
            f"access is not granted: accept the terms at {_endpoint()}/{name.repo}, set HF_TOKEN to"
            f" a token of that account, then {again}"
        )
    if isinstance(cause, errors.RevisionNotFoundError):
        return f"no revision {name.revision!r} on {_endpoint()}: see {_endpoint()}/{name.repo}"
    if status == 401 and not isinstance(cause, errors.RepositoryNotFoundError):
        return f"{_endpoint()} does not accept the token: set HF_TOKEN to a valid one, then {again}"
    if status in (401, 404):
        return (
            f"no such model on {_endpoint()}, or a private one: check the name; for a private one"
            f" set HF_TOKEN, then {again}"
        )
    if status == 429:
        wait = f"{shown(wait_s, 20)} s" if wait_s else "a few minutes"
        return f"too many requests (429): wait {wait}, or set HF_TOKEN for more; then {again}"
    return f"{_endpoint()} answers with status {status}: try {again} later"


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _first_line(cause: Exception) -> str:
    text = str(cause).strip().partition("\n")[0]
    return shown(text or type(cause).__name__, 100)

"""What ``bitinfer tune`` found on this machine: a file in the user's cache folder, read at load.

The file holds for one CPU and one build of bitinfer. It has a choice for each model that was tuned,
by instruction set and by the number of cores that the process may use; models of about the same
size share it. Whatever is wrong with the file costs speed only: it is passed over with a notice.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bitinfer import runtime
from bitinfer.cpu_count import physical_cores
from bitinfer.errors import ConfigError
from bitinfer.families.spec import num_parameters
from bitinfer.formats.new_file import replace_file
from bitinfer.json_file import parse_json_object, shown
from bitinfer.machine import cpu_name

FORMAT_VERSION = 2
_MOST_BYTES = 1 << 20
_LIKE = 4.0  # a model of up to so many times more or fewer parameters is tuned alike
_MEND = "'bitinfer tune' makes a new one"

CHOICES = {
    "packing": ("i2", "t3", "t5", "b1"),
    "gemv": ("addsub", "dot"),
    "weights": ("mmap", "copy"),
    "ffn": ("dense", "sparse"),
}


@dataclass(frozen=True)
class Tuned:
    """The fastest way to decode with one model on this machine.

    Attributes:
        model: Its `model_key`.
        name: Its folder's name, for people.
        parameters: Its size.
        isa: The row of kernels that it was measured with.
        cores: `physical_cores` that the process could use.
        packing: ``i2``, ``t3``, ``t5``, or ``b1`` of a model that is stored so.
        gemv: ``addsub`` or ``dot``.
        weights: ``mmap`` or ``copy``.
        ffn: ``dense`` or ``sparse``; of this model only, as others have other idle neurons.
        threads: The fewest that are as fast as any.
        quiet_threads: The fewest within 5 % of that.
        tokens_per_s: Reached with ``threads``.
        date: UTC, ISO 8601.
    """

    model: str
    name: str
    parameters: int
    isa: str
    cores: int
    packing: str
    gemv: str
    weights: str
    ffn: str
    threads: int
    quiet_threads: int
    tokens_per_s: float
    date: str

    @property
    def place(self) -> tuple[str, str, int]:
        """What it is for: two of the same place are not kept."""
        return self.model, self.isa, self.cores


def tuning_path() -> Path:
    """Where the file is; ``BITINFER_TUNING`` names another. It need not exist."""
    named = os.environ.get("BITINFER_TUNING", "").strip()
    if named:
        return Path(named).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("bitinfer", appauthor=False) / "tuning.json"


def model_key(spec: Mapping[str, Any], sha256: Any = None) -> str:
    """The identity of a model: its spec, and the digests of the files that it was made from."""
    text = json.dumps([dict(spec), sha256], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find(spec: Mapping[str, Any], model: str) -> Tuned | None:
    """The choice for a model, else that of the nearest one in size; None: nothing was tuned.

    A file that cannot be used is a warning, once.

    Args:
        spec: Of the model.
        model: Its `model_key`.
    """
    try:
        kept = read()
    except ConfigError as error:
        runtime.note_once(str(error))
        return None
    isa, cores, parameters = runtime.active_isa(), physical_cores(), num_parameters(spec)
    fitting = [t for t in kept if (t.isa, t.cores) == (isa, cores)]
    own = [t for t in fitting if t.model == model]
    near = [t for t in fitting if _distance(t, parameters) <= math.log(_LIKE)]
    return own[0] if own else min(near, key=lambda t: _distance(t, parameters), default=None)


def ternary_packings(*, in_groups: bool) -> tuple[str, ...]:
    """What the ternary weights of a model can be packed as: groups of columns do not fill t3."""
    return ("i2", "t5") if in_groups else ("i2", "t3", "t5")


def ternary_packing(tuned: Tuned | None, *, in_groups: bool) -> str:
    """What ``packing="auto"`` takes for the ternary weights of a model.

    Not b1, which cannot hold zeros.
    """
    packing = tuned.packing if tuned and tuned.packing != "b1" else runtime.auto_packing()
    return packing if packing in ternary_packings(in_groups=in_groups) else "i2"


def read() -> list[Tuned]:
    """All that was tuned; nothing if there is no file, or an empty one.

    Raises:
        ConfigError: the file is damaged, of another CPU, of another build or of a newer version.
    """
    path = tuning_path()
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return []
    except OSError as cause:
        raise ConfigError(f"tuning: {path} cannot be read: {cause.strerror}: not used") from None
    if not text:
        return []
    if len(text) > _MOST_BYTES:
        raise ConfigError(f"tuning: {path} is damaged (too large), it is not used: {_MEND}")
    found = parse_json_object(
        text, f"tuning: {path} is damaged, it is not used ({_MEND})", ConfigError
    )
    _check_origin(found, path)
    try:
        return [_entry(entry) for entry in found["models"]]
    except (KeyError, TypeError, ValueError) as cause:
        problem = shown(cause)
        raise ConfigError(
            f"tuning: {path} is damaged ({problem}), it is not used: {_MEND}"
        ) from None


def keep(tuned: Tuned) -> Path:
    """Write a choice in place of the one that stood for the same; returns the file.

    A file that cannot be used is replaced as a whole.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        kept = [other for other in read() if other.place != tuned.place]
    except ConfigError:
        kept = []
    path = prepare()
    found = {
        "format_version": FORMAT_VERSION,
        **_origin(),
        "models": [asdict(one) for one in [*kept, tuned]],
    }
    try:
        replace_file(path, json.dumps(found, indent=1) + "\n")
    except OSError as cause:
        raise ConfigError(f"tuning: {path} cannot be written: {cause.strerror}") from None
    return path


def prepare() -> Path:
    """Make the folder of the file; returns the file's path.

    Raises:
        ConfigError: it could not be written there.
    """
    path = tuning_path()
    _check_regular(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise ConfigError(f"tuning: {path} cannot be written: {cause.strerror}") from None
    return path


def clear() -> bool:
    """Remove the file; whether there was one.

    Raises:
        ConfigError: it cannot be removed.
    """
    path = tuning_path()
    _check_regular(path)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as cause:
        raise ConfigError(f"tuning: {path} cannot be removed: {cause.strerror}") from None
    return True


def _origin() -> dict[str, Any]:
    """The machine and the build that the file holds for."""
    code = zlib.crc32(runtime.core_file().read_bytes())
    return {
        "cpu": cpu_name(),
        "isas": runtime.available_isas(),
        "build": f"{runtime.version()} {code:08x}",
    }


def _check_origin(found: Mapping[str, Any], path: Path) -> None:
    version = found.get("format_version")
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        kind = "of a newer bitinfer" if newer else "of an unknown version"
        raise ConfigError(f"tuning: {path} is {kind}, it is not used: {_MEND}")
    for name, here in _origin().items():
        if found.get(name) != here:
            kind = "build of bitinfer" if name == "build" else "CPU"
            raise ConfigError(f"tuning: {path} is of another {kind}, it is not used: {_MEND}")


def _entry(found: Mapping[str, Any]) -> Tuned:
    """An entry of the file; ValueError, TypeError or KeyError if it is none."""
    kinds = {
        field.name: {"int": int, "float": float, "str": str}[str(field.type)]
        for field in fields(Tuned)
    }
    values = {name: found[name] for name in kinds}
    for name, kind in kinds.items():
        value = values[name]
        if type(value) is not kind or value not in CHOICES.get(name, (value,)):
            raise ValueError(f"{name}: {value}")
    tuned = Tuned(**values)
    if not 1 <= tuned.quiet_threads <= tuned.threads <= runtime.MAX_THREADS or tuned.parameters < 1:
        raise ValueError(f"threads: {tuned.threads}")
    return tuned


def _distance(tuned: Tuned, parameters: int) -> float:
    return abs(math.log(tuned.parameters / parameters))


def _check_regular(path: Path) -> None:
    """Refuse to replace or remove what is no file, such as /dev/null."""
    if path.exists() and not path.is_file():
        raise ConfigError(f"tuning: expected a file at {path}, got something else")

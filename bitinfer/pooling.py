"""How the hidden states of a text become one vector: as the model's files say, else by default.

Models of sentence-transformers say so in modules.json, 1_Pooling/config.json and
config_sentence_transformers.json. Without them it is the last token, to unit length: so
BitNet-Embedding was trained, and of other decoders it is the token that has seen the whole text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import ConfigError
from bitinfer.json_file import read_json_array, read_json_object, shown

POOLINGS = ("last", "mean", "cls")
MODULES, POOLING = "modules.json", "1_Pooling/config.json"
PROMPTS, LENGTH = "config_sentence_transformers.json", "sentence_bert_config.json"
FILES = (MODULES, POOLING, PROMPTS, LENGTH)
# Switches of 1_Pooling/config.json, one of which is on -> how the tokens are pooled.
_MODES = {
    "pooling_mode_lasttoken": "last",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}
_SMALLEST_NORM = 1e-12  # as torch.nn.functional.normalize has it


@dataclass(frozen=True)
class Pooling:
    """What makes one vector of a text.

    Attributes:
        mode: ``last`` token, ``mean`` of all tokens, or ``cls``: the first.
        normalize: Bring the vector to unit length.
        trained: The model was trained to be pooled so.
        prompts: Name to text that stands before the user's.
        default_prompt_name: The prompt in use where none is named; None: no prompt.
        include_prompt: The tokens of the prompt take part in the mean.
        max_tokens: Most tokens of a text; None: as many as the context holds.
    """

    mode: str = "last"
    normalize: bool = True
    trained: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    include_prompt: bool = True
    max_tokens: int | None = None

    @classmethod
    def load(cls, folder: Path, spec: Mapping[str, Any]) -> Pooling:
        """What the files in ``folder`` say of a model of that spec.

        Raises:
            ConfigError: a file is damaged, or asks for what is not known here.
        """
        if not (folder / MODULES).exists():
            return cls(trained=spec["projection_norm"] is not None and spec["qk_norm"])
        kinds = _kinds(folder)
        pooling = read_json_object(folder / POOLING, ConfigError)
        where = f"{POOLING} in {folder}"
        width = pooling.get("word_embedding_dimension", spec["hidden_size"])
        if width != spec["hidden_size"]:
            raise ConfigError(
                f"{where}: word_embedding_dimension: expected {spec['hidden_size']}, the model's"
                f" hidden_size, got {shown(width)}"
            )
        prompts, default = _prompts(folder)
        return cls(
            mode=_mode(pooling, where),
            normalize="Normalize" in kinds,
            trained=True,
            prompts=prompts,
            default_prompt_name=default,
            include_prompt=pooling.get("include_prompt", True) is True,
            max_tokens=_max_tokens(folder),
        )

    def files(self) -> dict[str, str]:
        """Name to content of the files that say the mode and the normalization."""
        kinds = ["Transformer", "Pooling", *(["Normalize"] if self.normalize else [])]
        paths = ["", str(Path(POOLING).parent), "2_Normalize"]
        modules = [
            {"type": f"sentence_transformers.models.{kind}", "path": path}
            for kind, path in zip(kinds, paths, strict=False)
        ]
        (switch,) = (name for name, mode in _MODES.items() if mode == self.mode)
        contents = {MODULES: modules, POOLING: {switch: True}}
        return {name: json.dumps(content, indent=2) + "\n" for name, content in contents.items()}

    def changed(self, mode: str | None, normalize: bool | None) -> Pooling:
        """With what is not None in its place; of another mode the model was not trained for it.

        Raises:
            ValueError: ``mode`` is not one of ``POOLINGS``.
        """
        if mode not in (None, *POOLINGS):
            raise ValueError(f"pooling: expected {', '.join(POOLINGS)}, got {mode!r}")
        return replace(
            self,
            mode=mode or self.mode,
            normalize=self.normalize if normalize is None else normalize,
            trained=self.trained and mode in (None, self.mode),
        )

    def prompt(self, name: str | None) -> str:
        """The text of the prompt ``name``, or of the default one.

        Raises:
            ValueError: the model has no prompt of that name.
        """
        name = self.default_prompt_name if name is None else name
        if name is None:
            return ""
        if name not in self.prompts:
            known = ", ".join(sorted(self.prompts)) or "none"
            raise ValueError(f"prompt_name: expected one of the model's ({known}), got {name!r}")
        return self.prompts[name]

    def pool(self, states: NDArray[np.float32], prompt_length: int = 0) -> NDArray[np.float32]:
        """One vector of a text.

        Sums are made in double, in order, so that no bit depends on the machine or other texts.

        Args:
            states: Hidden states (T, hidden) of its tokens; of ``last``, its last alone will do.
            prompt_length: Tokens of the prompt, which ``include_prompt`` may leave out.

        Returns:
            float32 ``(hidden,)``.
        """
        if self.mode == "mean":
            taken = states if self.include_prompt else states[prompt_length:]
            vector = np.zeros(states.shape[1])
            for state in taken:
                vector += state
            vector /= max(len(taken), 1)
        else:
            vector = states[-1 if self.mode == "last" else 0].astype(np.float64)
        if self.normalize:
            vector /= max(math.sqrt(math.fsum(vector * vector)), _SMALLEST_NORM)
        return vector.astype(np.float32)


def _kinds(folder: Path) -> list[str]:
    """The kinds of the modules, in order."""
    where = f"{MODULES} in {folder}"
    modules = read_json_array(folder / MODULES, ConfigError)
    kinds, paths = [], []
    for module in modules:
        kind, path = (
            module.get(key) if isinstance(module, dict) else None for key in ("type", "path")
        )
        kinds.append(str(kind).rpartition(".")[2])
        paths.append(path)
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise ConfigError(
            f"{where}: expected Transformer, Pooling and maybe Normalize, got"
            f" {shown(', '.join(kinds)) or 'nothing'}: other modules are not supported"
        )
    if paths[1] != Path(POOLING).parent.name:
        expected = Path(POOLING).parent
        raise ConfigError(f"{where}: path: expected {expected}, got {shown(repr(paths[1]))}")
    return kinds


def _mode(pooling: Mapping[str, Any], where: str) -> str:
    on = [name for name in pooling if name.startswith("pooling_mode_") and pooling[name] is True]
    named = pooling.get("pooling_mode")  # newer files
    on += [f"pooling_mode_{named}"] if isinstance(named, str) else []
    known = {**_MODES, "pooling_mode_mean": "mean", "pooling_mode_cls": "cls"}
    if len(on) != 1 or on[0] not in known:
        raise ConfigError(
            f"{where}: expected one of {', '.join(_MODES)}, got {shown(', '.join(on)) or 'none'}:"
            " give pooling yourself"
        )
    return known[on[0]]


def _prompts(folder: Path) -> tuple[dict[str, str], str | None]:
    """The prompts by name, and the name of the default one."""
    if not (folder / PROMPTS).exists():
        return {}, None
    values = read_json_object(folder / PROMPTS, ConfigError)
    where = f"{PROMPTS} in {folder}"
    prompts, default = values.get("prompts") or {}, values.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(p, str) for p in prompts.values()):
        raise ConfigError(f"{where}: prompts: expected names with texts, got {shown(prompts)}")
    if default is not None and default not in prompts:
        raise ConfigError(
            f"{where}: default_prompt_name: expected one of the prompts, got {shown(repr(default))}"
        )
    return prompts, default


def _max_tokens(folder: Path) -> int | None:
    if not (folder / LENGTH).exists():
        return None
    length = read_json_object(folder / LENGTH, ConfigError).get("max_seq_length")
    if length is not None and (type(length) is not int or length < 1):
        raise ConfigError(
            f"{LENGTH} in {folder}: max_seq_length: expected a number of tokens, got"
            f" {shown(repr(length))}"
        )
    return length

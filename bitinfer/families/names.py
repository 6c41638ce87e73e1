"""The names under which checkpoints store what is one tensor here.

Behind ``canonical_names`` all code knows one name for each tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from bitinfer.errors import CheckpointError
from bitinfer.families.gguf_names import hugging_face_name
from bitinfer.json_file import shown

# Parts of a name as they are stored -> what they are here.
_SPELLINGS = (
    (re.compile(r"^(?=(embed_tokens|layers|norm)\.)"), "model."),  # an encoder without its head
    (re.compile(r"\.self_attn\.inner_attn_ln\."), ".self_attn.attn_sub_norm."),
    (re.compile(r"\.mlp\.ffn_layernorm\."), ".mlp.ffn_sub_norm."),
    (re.compile(r"_proj\.rms_norm\."), "_proj.norm."),
)
# Projections with a norm before them (SubLN), by their names within a layer -> that norm.
SUB_NORMS = {
    "self_attn.o_proj": "self_attn.attn_sub_norm",
    "mlp.down_proj": "mlp.ffn_sub_norm",
}
# Norms inside these projections alone are the sub-norms before them.
_INSIDE = tuple(
    (re.compile(rf"\.{re.escape(projection)}\.norm\."), f".{norm}.")
    for projection, norm in SUB_NORMS.items()
)
FIRST_PROJECTION_NORM = "model.layers.0.self_attn.q_proj.norm.weight"


def is_gain(name: str) -> bool:
    """Whether a canonical tensor is the gain of a norm of the model, not of a projection."""
    return name.endswith("norm.weight") and "_proj." not in name


def canonical_names(stored: Iterable[str]) -> dict[str, str]:
    """Canonical name to stored name of each tensor, in the order of ``stored``.

    Raises:
        CheckpointError: two stored names are spellings of one.
    """
    names = _renamed({hugging_face_name(name) or name: name for name in stored}, _SPELLINGS)
    return names if FIRST_PROJECTION_NORM in names else _renamed(names, _INSIDE)


def _renamed(
    names: Mapping[str, str], spellings: Iterable[tuple[re.Pattern[str], str]]
) -> dict[str, str]:
    """Canonical name to stored name after ``spellings``."""
    renamed: dict[str, str] = {}
    for old, stored in names.items():
        name = old
        for pattern, canonical in spellings:
            name = pattern.sub(canonical, name)
        if name in renamed:
            raise CheckpointError(
                f"{shown(stored)}: expected one spelling of {shown(name)}, got"
                f" {shown(renamed[name])} as well: the checkpoint is damaged"
            )
        renamed[name] = stored
    return renamed

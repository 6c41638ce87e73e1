"""Tables of what is computed, not measured, for docs/scaling.md."""

from __future__ import annotations

from collections import Counter

import arithmetic
import on_paper
from tables_md import number, table

NEAR, DEEP = 128, 4096  # tokens of context


def speed() -> str:
    """Bytes per token of each shape, and the tokens/s that memory systems allow."""
    specs = {name: on_paper.spec_of(shape) for name, shape in on_paper.PAPER_SHAPES.items()}
    read = {
        (name, context): on_paper.decode_bytes(spec, "t5", context)
        for name, spec in specs.items()
        for context in (NEAR, DEEP)
    }
    rows = [
        [f"GB a token after {context}", *(f"{read[name, context] / 1e9:.2f}" for name in specs)]
        for context in (NEAR, DEEP)
    ]
    for system in on_paper.SYSTEMS:
        speeds = [
            " / ".join(number(on_paper.tokens_per_s(read[name, c], system)) for c in (NEAR, DEEP))
            for name in specs
        ]
        rows.append([f"{system.name}: {system.gb_per_s:.0f} GB/s", *speeds])
    return table(["computed", *specs], rows)


def energy() -> str:
    """Energy of a token's arithmetic beside FP16, by published figures."""
    rows = []
    for name, shape in on_paper.PAPER_SHAPES.items():
        spec = on_paper.spec_of(shape)
        operations = [
            (arithmetic.float_matrices(spec), arithmetic.ternary_matrices(spec)),
            (arithmetic.float_matrices(spec), arithmetic.ternary_matrices(spec, "int32 add")),
            (arithmetic.float_token(spec, NEAR), arithmetic.ternary_token(spec, NEAR)),
        ]
        cells = [_beside(floats, ternary) for floats, ternary in operations]
        rows.append([name, *cells])
    heading = ["computed, 7 nm", "matrices, 8-bit additions", "matrices, 32-bit additions"]
    return table([*heading, f"whole token after {NEAR}"], rows)


def _beside(floats: Counter[str], ternary: Counter[str]) -> str:
    """Energy in FP16 and ours, and by how much ours is less."""
    before, ours = (arithmetic.millijoules(count, "7 nm") for count in (floats, ternary))
    return f"{number(before)} / {ours:.3g} mJ: **{number(before / ours)}**"

"""What the chat says first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitinfer.model import Model


def title(model: Model) -> str:
    """The model in a line."""
    from bitinfer import active_isa
    from bitinfer.families.spec import num_parameters

    millions = num_parameters(model.engine.spec) / 1e6
    size = f"{millions:.1f} M" if millions < 1000 else f"{millions / 1000:.1f} G"
    threads = model.engine.num_threads
    return (
        f"{model.path.resolve().name}: {model.engine.spec['model_type']}, {size} parameters, "
        f"{model.engine.packing} on {active_isa()}, {threads} thread{'s' * (threads != 1)}"
    )


def hint(model: Model) -> str:
    """What to try."""
    from bitinfer import default_model

    if model.path.resolve() == default_model().resolve():
        return (
            "Small as it is, it tells stories for children and answers simple questions.\n"
            'Try "Tell me a story about a fox"; /help shows what else can be done.'
        )
    return "Ctrl-C stops a reply, Ctrl-D leaves, /help shows what else can be done."

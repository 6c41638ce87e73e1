"""An option of the command line for a field of a config whose metadata hold help and choices."""

from __future__ import annotations

from dataclasses import MISSING, Field
from typing import Any

import click

_KINDS: dict[str, Any] = {
    "int": click.INT,
    "int | None": click.INT,
    "float": click.FLOAT,
}


class FieldOption(click.Option):
    """An option under a heading; without a default, for a file or a run may have the value."""

    def __init__(
        self,
        field: Field[Any],
        section: str,
        *,
        name: str = "",
        default: Any = None,
        **attributes: Any,
    ) -> None:
        """Make the option of ``field``.

        Args:
            field: Of a config.
            section: Heading in the help.
            name: Of the flag, in snake case; "": the field's.
            default: For the help, where it is not the field's.
            attributes: Of `click.Option`.
        """
        self.section = section
        name = name or field.name
        flag = "--" + name.replace("_", "-")
        about = field.metadata
        attributes = {"type": _KINDS.get(str(field.type)), "help": about["help"], **attributes}
        if "bool" in str(field.type):
            flag += f"/--no-{flag[2:]}"
            attributes["default"] = None
        if "choices" in about:
            attributes["type"] = click.Choice(about["choices"])
        shown = field.default if default is None else default
        if shown not in (MISSING, None, ()):
            attributes["help"] += f" [default: {'yes' if shown is True else shown}]"
        super().__init__([flag, name], **attributes)

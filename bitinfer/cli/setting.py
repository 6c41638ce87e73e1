"""``Setting``: an option that can also be set by a variable, or in the settings file.

A flag beats the environment variable, the variable the file, the file the default: that is click's
own order, with the command's part of the file as its ``default_map``.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from bitinfer.errors import ConfigError
from bitinfer.sampling import SETTINGS, check_setting, setting_from_text
from bitinfer.settings import SettingsFile, default_path

_META = "bitinfer.settings"  # where a click context keeps the file


class Setting(click.Option):
    """An option of ``BITINFER_<NAME>`` and of the settings file, beside its flag."""

    def __init__(self, *arguments: Any, section: str = "Options", **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.section = section  # heading in the help
        assert self.name is not None
        self.envvar = self.envvar or f"BITINFER_{self.name.upper()}"
        self.key = self.name.replace("_", "-")  # as the file and the flag have it

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> Any:
        """Read the settings file for the first setting of a command: after ``--help``."""
        if ctx.default_map is None and not ctx.resilient_parsing:
            ctx.default_map = file_settings(ctx)
        return super().consume_value(ctx, opts)

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Convert and check; an error names the variable, or the file's line and key."""
        assert self.name is not None
        source = ctx.get_parameter_source(self.name)
        try:
            if source is ParameterSource.DEFAULT_MAP:
                self._check_kind(value)
            return super().process_value(ctx, value)
        except click.BadParameter as error:
            problem = error.message.rstrip(".")
            if source is ParameterSource.ENVIRONMENT:
                raise ConfigError(f"{self.envvar}: {problem}") from None
            if source is ParameterSource.DEFAULT_MAP:
                raise ConfigError(f"{self.place(ctx)}: {self.key}: {problem}") from None
            raise

    def place(self, ctx: click.Context) -> str:
        """Where in the settings file the value stands."""
        file, section = settings_file(ctx), _section(ctx)
        spelled = {key.replace("-", "_"): key for key in file.table(section)}
        if self.name in spelled:
            return file.place(section, spelled[self.name])
        spelled = {key.replace("-", "_"): key for key in file.values}
        return file.place(spelled[self.name or ""])

    def _check_kind(self, value: Any) -> None:
        """Refuse a value of another kind, which click would convert to something strange."""
        kinds, words = _kinds(self)
        values = value if self.multiple and isinstance(value, list) else [value]
        if self.multiple and not isinstance(value, list):
            raise click.BadParameter(f"expected a list of values, got {_as_toml(value)}")
        for one in values:
            if not isinstance(one, kinds) or (isinstance(one, bool) and bool not in kinds):
                raise click.BadParameter(f"expected {words}, got {_as_toml(one)}")


def _kinds(setting: Setting) -> tuple[tuple[type, ...], str]:
    """Python types of the values that a TOML file may give to a setting, and their name."""
    if isinstance(setting.type, SamplingValue):
        if SETTINGS[setting.type.setting]["kind"] == "bias":
            return (dict,), "a table of token id = number"
        return (int, float), "a number"
    if isinstance(setting.type, click.types.BoolParamType):
        return (bool,), "true or false"
    if isinstance(setting.type, Whole):
        return (int,), "a whole number"
    return (str,), "a text in quotes"


def _as_toml(value: Any) -> str:
    """A value as the file has it, or nearly: texts, numbers, true and false are as in JSON."""
    return json.dumps(value, default=str, ensure_ascii=False)


def plain(value: Any) -> Any:
    """A value as strict JSON has it: keys, infinities and paths are texts."""
    if isinstance(value, dict):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, bool | int | float | str | None) else str(value)


class Whole(click.ParamType):  # type: ignore[type-arg]  # generic only in new versions
    """A whole number from ``low`` to ``high``; None: no bound."""

    name = "integer"

    def __init__(self, low: int, high: int | None = None) -> None:
        self._low, self._high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number, or click's error with the range."""
        upper = "up" if self._high is None else f"to {self._high}"
        with contextlib.suppress(ValueError):
            number = int(value)
            if self._low <= number and (self._high is None or number <= self._high):
                return number
        self.fail(f"expected a whole number from {self._low} {upper}, got {value}", param, ctx)


def with_token_ids(bias: Mapping[str, Any]) -> dict[Any, Any]:
    """A table of TOML or JSON, where all keys are texts, with whole numbers for keys."""
    return {int(k) if k.isascii() and k.isdecimal() else k: v for k, v in bias.items()}


class SamplingValue(click.ParamType):  # type: ignore[type-arg]
    """A field of `SamplingParams`, which says what it may be."""

    def __init__(self, setting: str) -> None:
        self.setting = setting
        self.name = {"float": "number", "int": "integer", "bias": "id=number,..."}[
            SETTINGS[setting]["kind"]
        ]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value, or click's error with the range."""
        try:
            if isinstance(value, str):
                return setting_from_text(self.setting, value)
            if isinstance(value, dict):
                value = with_token_ids(value)
            check_setting(self.setting, value)
        except ValueError as error:
            self.fail(str(error).removeprefix(f"{self.setting}: "), param, ctx)
        return value


class ModelFolder(click.ParamType):  # type: ignore[type-arg]
    """A model folder or a model's name; the shell completes folders and short names."""

    name = "folder"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Folders, and the names."""
        from bitinfer import default_model
        from bitinfer.hub.names import known_models

        names = [default_model().name, *known_models()]
        found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        if incomplete and found:
            return found
        return [CompletionItem(incomplete, type="dir")]


def settings_path(ctx: click.Context) -> tuple[Path, bool]:
    """``--config``, ``BITINFER_CONFIG`` or the usual file; and whether somebody named it."""
    named = ctx.find_root().params.get("config")
    return (Path(named).expanduser(), True) if named else (default_path(), False)


def settings_file(ctx: click.Context) -> SettingsFile:
    """The settings file of this run."""
    if _META not in ctx.meta:
        path, named = settings_path(ctx)
        ctx.meta[_META] = SettingsFile.read(path, required=named)
    file = ctx.meta[_META]
    assert isinstance(file, SettingsFile)
    return file


def file_settings(ctx: click.Context) -> dict[str, Any]:
    """Values that the file has for the command of ``ctx``, by the name of the parameter.

    Raises:
        ConfigError: the file is broken or holds a key that is no setting.
    """
    from bitinfer.cli import command_names
    from bitinfer.cli.options import COMMON_SETTINGS

    file, section = settings_file(ctx), _section(ctx)
    own = {p.name or "" for p in ctx.command.params if isinstance(p, Setting)}
    found: dict[str, Any] = {}
    for key, value in file.values.items():
        if isinstance(value, dict) and key in command_names():
            continue
        if key.replace("-", "_") in own - COMMON_SETTINGS:
            raise ConfigError(f"{file.place(key)}: {key}: it belongs below a line [{section}]")
        name = _known(file, (key,), COMMON_SETTINGS)
        if name in own:
            found[name] = value
    for key, value in file.table(section).items():
        found[_known(file, (section, key), own)] = value
    return found


def _known(file: SettingsFile, keys: tuple[str, ...], known: Collection[str]) -> str:
    """The parameter that a key names; "max-tokens" and "max_tokens" are the same."""
    name = keys[-1].replace("-", "_")
    if name in known:
        return name
    from bitinfer.cli import command_names

    close = difflib.get_close_matches(name, [*known, *command_names()], n=1)
    mend = f"did you mean {close[0].replace('_', '-')}?" if close else ""
    mend = mend or "'bitinfer config show' lists them"
    raise ConfigError(f"{file.place(*keys)}: {'.'.join(keys)}: no such setting: {mend}")


def _section(ctx: click.Context) -> str:
    """The command below ``bitinfer`` that ``ctx`` belongs to; tables have the commands' names."""
    while ctx.parent is not None and ctx.parent.parent is not None:
        ctx = ctx.parent
    return ctx.info_name or ""

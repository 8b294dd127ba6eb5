"""Options of a command line whose help and default are those of a setting."""

from typing import Any

import typer

from fedperfit.protocol.settings.base import Settings
from fedperfit.protocol.settings.describe import Setting, described
from fedperfit.protocol.settings.names import key_of


def setting_option(group: type[Settings], name: str) -> Any:
    """An option for a setting: None unless given, so that the setting's own default applies.

    Args:
        group: Where the setting is declared.
        name: Its field name; the option is this with hyphens.
    """
    setting = next(setting for setting in described(group) if setting.key == key_of(name))
    return typer.Option(f"--{setting.key}", help=setting.meaning, show_default=default_text(setting) or False)


def default_text(setting: Setting) -> str:
    """A default as it may be typed; empty where there is none."""
    if setting.default is None:
        return ""
    if isinstance(setting.default, list):
        return ",".join(map(str, setting.default)) or "none"
    if isinstance(setting.default, bool):
        return str(setting.default).lower()
    return str(setting.default)


SET_HELP = "Any other setting, key=value, e.g. {example}; `fedperfit settings` lists all."

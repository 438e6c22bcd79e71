"""The configuration as people and programs are shown it."""

import os
from pathlib import Path

from vastskyd.config.files import Reading
from vastskyd.config.settings import EFFECTS, Config, Effect
from vastskyd.core.model import Record

Value = str | int | float | tuple[str, ...] | None


class SettingView(Record):
    """`key` is dotted: "timeouts.heartbeat_s". `value` and `default` are null where the host's
    roles are not set. `file` and `line` say where it is set, and are empty and 0 if it is not.
    `effect`: reload or restart of vastskyd is enough for a change, or join: it is read when the
    host makes or joins a cluster."""

    key: str
    value: Value
    default: Value
    file: str
    line: int
    effect: Effect


class ConfigView(Record):
    """`files` were read, in this order."""

    files: tuple[str, ...]
    settings: tuple[SettingView, ...]


def view(reading: Reading) -> ConfigView:
    """Of a reading without mistakes."""
    return ConfigView(
        files=tuple(map(_shown, reading.files)),
        settings=tuple(_setting(reading, key) for key in EFFECTS),
    )


def _setting(reading: Reading, key: str) -> SettingView:
    place = reading.origins.get(key)
    return SettingView(
        key=key,
        value=_plain(reading.config, key),
        default=_plain(Config(), key),
        file="" if place is None else _shown(place.file),
        line=0 if place is None else place.line,
        effect=EFFECTS[key],
    )


def _shown(file: Path) -> str:
    """Its name may be any bytes."""
    return os.fsencode(file).decode("utf-8", "replace")


def _plain(config: Config, key: str) -> Value:
    value = config.value_of(key)
    if isinstance(value, tuple):
        return tuple(map(str, value))
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{key} has a value of a type that cannot be shown")

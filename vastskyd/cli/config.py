"""vastskyctl config"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vastskyd.cli.complete import setting_keys
from vastskyd.cli.options import json_option
from vastskyd.cli.table import Column, print_table
from vastskyd.cli.watch import shown
from vastskyd.core.errors import InvalidError, NotFoundError

if TYPE_CHECKING:
    from vastskyd.config.view import ConfigView, SettingView


@click.group()
def config() -> None:
    """This host's settings."""


@config.command()
@click.argument("keys", nargs=-1, metavar="[SETTING|TABLE]...", shell_complete=setting_keys)
@click.option("--config", "file", type=click.Path(path_type=Path), metavar="FILE",
              help="Another file than vastskyd's own, and the drop-ins beside it.")  # fmt: skip
@json_option
def show(keys: tuple[str, ...], file: Path | None, as_json: bool) -> None:
    """Each setting, its value, where that comes from, and what makes a change of it count.

    It is what the files say now, whether vastskyd runs or not. A change counts after `systemctl
    reload vastskyd`, or only after a restart, or only for hosts that have still to join a cluster.

    \b
    Examples:
      vastskyctl config show
      vastskyctl config show timeouts placement.segment_max

    With --json: ConfigView.
    """
    shown(lambda: _view(file, keys), _show, as_json=as_json)


def _view(file: Path | None, keys: tuple[str, ...]) -> "ConfigView":
    from vastskyd.config.files import read  # noqa: PLC0415 - only this command needs it
    from vastskyd.config.settings import DEFAULT_PATH  # noqa: PLC0415
    from vastskyd.config.view import ConfigView, view  # noqa: PLC0415

    reading = read(file or DEFAULT_PATH, needed=file is not None)
    if reading.mistakes:
        raise InvalidError(
            "\n".join(("the configuration cannot be used:", *map(str, reading.mistakes))),
            hint="mend each line; `vastskyd --check-config` says nothing once all are right",
        )
    whole = view(reading)
    for key in keys:
        if not any(_is_named(each, key) for each in whole.settings):
            raise NotFoundError(
                f"there is no setting {key!r}", hint="`vastskyctl config show` shows them all"
            )
    chosen = (s for s in whole.settings if not keys or any(_is_named(s, key) for key in keys))
    return ConfigView(files=whole.files, settings=tuple(chosen))


def _is_named(setting: "SettingView", key: str) -> bool:
    return setting.key == key or setting.key.startswith(f"{key}.")


_COLUMNS = (
    Column("SETTING"), Column("VALUE", least=16), Column("FROM", spare=1, least=16),
    Column("EFFECT", spare=2),
)  # fmt: skip


def _show(view: "ConfigView") -> None:
    print_table(_COLUMNS, [_row(setting) for setting in view.settings])


def _row(setting: "SettingView") -> tuple[str, ...]:
    from vastskyd.config.written import written  # noqa: PLC0415 - as above

    value = "" if setting.value is None else written(setting.value)
    place = f"{setting.file}:{setting.line}" if setting.file else "default"
    return (setting.key, value, place, setting.effect)

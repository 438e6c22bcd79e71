"""The host's configuration: /etc/vastsky/vastskyd.toml and the drop-ins beside it.

`vastskyd.toml.d/*.toml` are merged over the main file in the order of their names. With one
mistake anywhere nothing of it is used: a daemon that guesses what an administrator meant is worse
than one that does not start.
"""

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from vastskyd.config.check import Found, Mistake, Place, Setting, check_text, check_together
from vastskyd.config.settings import Config
from vastskyd.core.errors import InvalidError


@dataclass(frozen=True)
class Reading:
    """`files` were there. `origins`: where each setting stands that is not the default.
    `config` is of use only without `mistakes`, which are in the order of files and lines."""

    files: tuple[Path, ...]
    config: Config
    origins: dict[str, Place]
    mistakes: tuple[Mistake, ...]


def load(path: Path, *, needed: bool = False) -> Config:
    """The configuration of `path` and its drop-ins; the defaults where neither exists. `needed`:
    it is a mistake if the file is not there.

    InvalidError has all mistakes of all files, each on a line: FILE:LINE: what is wrong; what is
    right.
    """
    reading = read(path, needed=needed)
    if reading.mistakes:
        raise InvalidError("\n".join(map(str, reading.mistakes)))
    return reading.config


def read(path: Path, *, needed: bool = False) -> Reading:
    """The same with its mistakes, and with where each setting stands."""
    files: list[Path] = []
    merged: dict[str, Setting] = {}
    mistakes: list[Mistake] = []
    for found in _found(path, files, needed=needed):
        if isinstance(found, Mistake):
            mistakes.append(found)
        else:
            merged[found.key] = found
    config = msgspec.convert(_nested(merged), Config)
    origins = {key: setting.place for key, setting in merged.items()}
    doubtful = {each.key for each in mistakes}
    if "" not in doubtful:  # else a file is missing in it
        mistakes += check_together(config, origins, doubtful)
    order = {file: number for number, file in enumerate(files)}
    mistakes.sort(key=lambda each: (order.get(each.place.file, -1), each.place.line))
    return Reading(tuple(files), config, origins, tuple(mistakes))


def _found(path: Path, files: list[Path], *, needed: bool) -> Iterator[Found]:
    """What stands in the main file and then in each drop-in; `files` gets those that were read."""
    directory = path.with_name(path.name + ".d")
    drop_ins: list[Path] = []
    try:
        drop_ins += sorted(filter(_counts, directory.iterdir()))
    except FileNotFoundError:
        pass
    except OSError as error:
        yield _unreadable(directory, error)
    for file in (path, *drop_ins):
        try:
            if file.is_fifo():  # whoever reads it waits for a writer
                raise OSError(errno.EINVAL, "it is a pipe, not a file")
            content = file.read_bytes()
        except OSError as error:
            # A drop-in that is not there is a link to nothing.
            if needed or file != path or not isinstance(error, FileNotFoundError):
                yield _unreadable(file, error)
        else:
            files.append(file)
            yield from _check_bytes(file, content)


def _counts(drop_in: Path) -> bool:
    """Not what editors leave beside a file while it is open."""
    return drop_in.name.endswith(".toml") and not drop_in.name.startswith(".")


def _check_bytes(file: Path, content: bytes) -> Iterator[Found]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        wrong = f"byte {content[error.start]:#04x} is not UTF-8"
        yield Mistake(Place(file, line), "", wrong, "save the file as UTF-8")
    else:
        yield from check_text(file, text)


def _unreadable(file: Path, error: OSError) -> Mistake:
    denied = isinstance(error, PermissionError)
    right = "read it as root" if denied else "make it a file that can be read, or take it away"
    return Mistake(Place(file, 0), "", f"cannot be read: {error.strerror}", right)


def _nested(settings: dict[str, Setting]) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for key, setting in settings.items():
        *above, name = key.split(".")
        table = tables
        for part in above:
            table = table.setdefault(part, {})
        table[name] = setting.value
    return tables

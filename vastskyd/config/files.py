"""The host's configuration: /etc/vastsky/vastskyd.toml and the drop-ins beside it.

`vastskyd.toml.d/*.toml` are merged over the main file in the order of their names. With one
mistake anywhere nothing of it is used: a daemon that guesses what an administrator meant is worse
than one that does not start.
"""

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from vastskyd.config.check import Found, Mistake, Place, Setting, check_text, check_together
from vastskyd.config.settings import EFFECTS, Config
from vastskyd.core.errors import InvalidError

# All settings with all that can be said of them are 10 KiB: more is another file.
_CONTENT_MAX_BYTES = 128 * 1024


@dataclass(frozen=True)
class Reading:
    """`files` were there. `origins`: where each setting stands that is not the default.
    `config` is of use only without `mistakes`, which are in the order of files and lines."""

    files: tuple[Path, ...]
    config: Config
    origins: dict[str, Place]
    mistakes: tuple[Mistake, ...]


@dataclass(frozen=True)
class _Source:
    """A file, or the directory of the drop-ins where it cannot be read. `found` is empty of one
    that need not be there and is not."""

    path: Path
    found: tuple[Found, ...]
    read: bool = True


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
    sources = tuple(_sources(path, needed=needed))
    found = [each for source in sources for each in source.found]
    merged = {each.key: each for each in found if isinstance(each, Setting)}
    config = msgspec.convert(_nested(merged), Config)
    origins = {key: setting.place for key, setting in merged.items()}
    mistakes = [each for each in found if isinstance(each, Mistake)]
    mistakes += check_together(config, origins, _doubtful(sources))
    order = {source.path: number for number, source in enumerate(sources)}
    mistakes.sort(key=lambda each: (order[each.place.file], each.place.line))
    files = tuple(source.path for source in sources if source.read)
    return Reading(files, config, origins, tuple(mistakes))


def _doubtful(sources: Iterable[_Source]) -> set[str]:
    """Settings whose value is not known before the mistakes are mended: those with mistakes, unless
    a later file sets them anyway."""
    doubtful: set[str] = set()
    for source in sources:
        for each in source.found:
            if isinstance(each, Setting):
                doubtful.discard(each.key)
        for each in source.found:
            if isinstance(each, Mistake):
                doubtful |= {
                    key
                    for key in EFFECTS
                    if each.hides or key == each.key or key.startswith(f"{each.key}.")
                }
    return doubtful


def _sources(path: Path, *, needed: bool) -> Iterator[_Source]:
    """The main file and then each drop-in."""
    yield _source(path, needed=needed)
    directory = path.with_name(path.name + ".d")
    try:
        drop_ins = sorted(filter(_counts, directory.iterdir()))
    except FileNotFoundError:
        return
    except OSError as error:
        yield _Source(directory, (_unreadable(directory, error),), read=False)
        return
    for file in drop_ins:
        yield _source(file, needed=True)  # one that is not there is a link to nothing


def _counts(drop_in: Path) -> bool:
    """Not what editors leave beside a file while it is open."""
    return drop_in.name.endswith(".toml") and not drop_in.name.startswith(".")


def _source(file: Path, *, needed: bool) -> _Source:
    try:
        content = _content(file)
    except OSError as error:
        missing = not needed and isinstance(error, FileNotFoundError) and not file.is_symlink()
        return _Source(file, () if missing else (_unreadable(file, error),), read=False)
    return _Source(file, tuple(_check_bytes(file, content)))


def _content(file: Path) -> bytes:
    if file.exists() and not file.is_file() and not file.is_dir():
        # Whoever reads a pipe waits for a writer, and some devices have no end.
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file")
    with file.open("rb") as opened:
        content = opened.read(_CONTENT_MAX_BYTES + 1)
    if len(content) > _CONTENT_MAX_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {_CONTENT_MAX_BYTES // 1024} KiB")
    return content


def _check_bytes(file: Path, content: bytes) -> Iterator[Found]:
    """Of a text that is not UTF-8 only the first byte that shows it is told: to save it so mends
    all. Lines with such a byte are not looked at."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        wrong = f"byte {content[error.start]:#04x} is not UTF-8"
        yield Mistake(Place(file, line), "", wrong, "save the file as UTF-8", hides=True)
        if b"\0" in content:  # not text as people write it, or text of two bytes a letter
            return
        spoilt = {n for n, each in enumerate(content.split(b"\n"), 1) if not _is_utf8(each)}
        found = check_text(file, content.decode("utf-8", "replace"))
        yield from (each for each in found if each.place.line not in spoilt)
    else:
        yield from check_text(file, text)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _unreadable(file: Path, error: OSError) -> Mistake:
    denied = isinstance(error, PermissionError)
    right = "read it as root" if denied else "make it a file that can be read, or take it away"
    wrong = f"cannot be read: {error.strerror}"
    return Mistake(Place(file, 0), "", wrong, right, hides=True)


def _nested(settings: dict[str, Setting]) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for key, setting in settings.items():
        *above, name = key.split(".")
        table = tables
        for part in above:
            table = table.setdefault(part, {})
        table[name] = setting.value
    return tables

"""The host's configuration: /etc/vastsky/vastskyd.toml and the drop-ins beside it.

`vastskyd.toml.d/*.toml` are merged over the main file in the order of their names. A file that is
wrong is refused whole, with the line and what would be right: a daemon that guesses what an
administrator meant is worse than one that does not start.
"""

import difflib
import ipaddress
import math
import re
import tomllib
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec

from vastskyd.core.errors import InvalidError
from vastskyd.core.model import Encryption, Record, Role
from vastskyd.core.units import GIB, TIB, parse_size

DEFAULT_PATH = Path("/etc/vastsky/vastskyd.toml")

SEGMENT_MAX_LEAST_BYTES = GIB
SEGMENT_MAX_MOST_BYTES = 16 * TIB

# Each key of each table, and what may stand there: the hint of every refusal.
RIGHT: dict[str, str] = {
    "state_dir": 'an absolute directory, as in state_dir = "/var/lib/vastsky"',
    "runtime_dir": 'an absolute directory, as in runtime_dir = "/run/vastsky"',
    "roles": 'a list of "manager", "storage" and "head", each once',
    "addresses": 'a list of IP addresses, one per data network, as in ["10.0.1.7", "10.0.2.7"]',
    "port": "a TCP port from 1 to 65535",
    "rack": 'at most 63 letters, digits, ".", "_" and "-", as in rack = "r12"',
    "log_level": '"debug", "info", "warning" or "error"',
    "timeouts": "a table: [timeouts]",
    "timeouts.leg_timeout_s": "seconds from 1 to 600",
    "timeouts.heartbeat_s": "seconds from 0.2 to 60",
    "timeouts.dead_after_s": "seconds from 1 to 600, at least twice heartbeat_s",
    "timeouts.rebuild_delay_s": "seconds from 0 to 604800 (a week)",
    "timeouts.failover_delay_s": "seconds from 0 to 604800 (a week)",
    "rebuild": "a table: [rebuild]",
    "rebuild.per_disk": "a number of rebuilds from 1 to 64",
    "rebuild.rate_min_kib_s": "KiB a second from 0 to 100000000",
    "rebuild.rate_max_kib_s": "KiB a second from 1024 to 100000000",
    "scrub": "a table: [scrub]",
    "scrub.interval_h": "hours from 1 to 87600 (ten years), or 0 for never",
    "placement": "a table: [placement]",
    "placement.segment_max": 'a size from "1G" to "16T", as in segment_max = "64G"',
    "placement.data_encryption": '"tls" or "none"',
}

_RACK = re.compile(r"[A-Za-z0-9._-]{0,63}")
_AT = re.compile(r"(.*?)(?: - at `\$\.?(.*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_TABLE_LINE = re.compile(r"\s*\[\s*([A-Za-z0-9_-]+)\s*\]")
_KEY_LINE = re.compile(
    r"""\s*["']?([A-Za-z0-9_-]+)["']?\s*(?:\.\s*["']?([A-Za-z0-9_-]+)["']?)?\s*="""
)


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _between(value: float, least: float, most: float) -> None:
    # nan compares false with everything: the test is for being inside, not for being outside.
    if not (math.isfinite(value) and least <= value <= most):
        raise ValueError


class Timeouts(Record):
    """How long to wait before believing something."""

    leg_timeout_s: float = 5.0
    heartbeat_s: float = 2.0
    dead_after_s: float = 6.0
    rebuild_delay_s: float = 600.0
    failover_delay_s: float = 5.0


class Rebuild(Record):
    """How hard repair pushes: at `rate_min_kib_s` while the volume is in use, else at up to
    `rate_max_kib_s`, which wins where it is the lower."""

    per_disk: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    rate_min_kib_s: Annotated[int, msgspec.Meta(ge=0, le=100_000_000)] = 32_768
    rate_max_kib_s: Annotated[int, msgspec.Meta(ge=1024, le=100_000_000)] = 200_000


class Scrub(Record):
    """How often each volume's copies are compared; 0: only when somebody asks."""

    interval_h: Annotated[int, msgspec.Meta(ge=0, le=87_600)] = 672


class Placement(Record):
    """How new volumes are cut. `data_encryption` is read once, by `cluster init`."""

    segment_max: str = "64G"
    data_encryption: Encryption = Encryption.TLS

    @property
    def segment_max_bytes(self) -> int:
        return parse_size(self.segment_max)


class Config(Record):
    """`roles` None and `addresses` empty: as the host joined."""

    state_dir: str = "/var/lib/vastsky"
    runtime_dir: str = "/run/vastsky"
    roles: tuple[Role, ...] | None = None
    addresses: tuple[str, ...] = ()
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8884
    rack: str = ""
    log_level: LogLevel = LogLevel.INFO
    timeouts: Timeouts = Timeouts()
    rebuild: Rebuild = Rebuild()
    scrub: Scrub = Scrub()
    placement: Placement = Placement()

    @property
    def state_path(self) -> Path:
        return Path(self.state_dir)

    @property
    def runtime_path(self) -> Path:
        return Path(self.runtime_dir)


def load(path: Path = DEFAULT_PATH) -> Config:
    """The configuration of `path` and its drop-ins; the defaults where neither exists.

    InvalidError names file, line, what is wrong there and what would be right.
    """
    merged: dict[str, Any] = {}
    drop_ins = path.with_name(path.name + ".d")
    for file in (path, *sorted(drop_ins.glob("*.toml"))):
        text = _read(file)
        if text is None:
            continue
        _merge(merged, _parse(file, text))
    config = msgspec.convert(merged, Config)
    if config.timeouts.dead_after_s < 2 * config.timeouts.heartbeat_s:
        raise InvalidError(
            f"{path}: timeouts.dead_after_s = {config.timeouts.dead_after_s:g} would declare a"
            f" node dead for one late heartbeat (heartbeat_s = {config.timeouts.heartbeat_s:g})",
            hint=f"write {RIGHT['timeouts.dead_after_s']}",
        )
    return config


def _read(file: Path) -> str | None:
    try:
        return file.read_text("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise InvalidError(
            f"{file}: byte {error.start} is not UTF-8", hint="save the file as UTF-8"
        ) from error
    except OSError as error:
        raise InvalidError(
            f"{file}: cannot be read: {error.strerror}",
            hint="make it a file that root can read",
        ) from error


def _parse(file: Path, text: str) -> dict[str, Any]:
    """The file's tables, checked alone, so that a refusal can name the file."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidError(
            f"{file}: not TOML: {error}",
            hint='write lines such as port = 8884, and text in quotes, as in rack = "r12"',
        ) from error
    try:
        config = msgspec.convert(tables, Config)
    except msgspec.ValidationError as error:
        raise _refusal(file, text, tables, str(error)) from error
    for key, check in _CHECKS.items():
        try:
            check(config)
        except (ValueError, OverflowError, InvalidError) as error:
            raise _wrong_value(file, text, tables, key) from error
    return tables


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


# --- what a type alone cannot check -------------------------------------------------------


def _absolute(directory: str) -> None:
    if not Path(directory).is_absolute() or "\0" in directory:
        raise ValueError


def _check_roles(config: Config) -> None:
    roles = config.roles
    if roles is not None and (not roles or len(set(roles)) != len(roles)):
        raise ValueError


def _check_addresses(config: Config) -> None:
    if len({ipaddress.ip_address(address) for address in config.addresses}) != len(
        config.addresses
    ):
        raise ValueError


def _check_rack(config: Config) -> None:
    if not _RACK.fullmatch(config.rack):
        raise ValueError


_CHECKS: dict[str, Callable[[Config], None]] = {
    "state_dir": lambda config: _absolute(config.state_dir),
    "runtime_dir": lambda config: _absolute(config.runtime_dir),
    "roles": _check_roles,
    "addresses": _check_addresses,
    "rack": _check_rack,
    "timeouts.leg_timeout_s": lambda config: _between(config.timeouts.leg_timeout_s, 1, 600),
    "timeouts.heartbeat_s": lambda config: _between(config.timeouts.heartbeat_s, 0.2, 60),
    "timeouts.dead_after_s": lambda config: _between(config.timeouts.dead_after_s, 1, 600),
    "timeouts.rebuild_delay_s": lambda config: _between(
        config.timeouts.rebuild_delay_s, 0, 604_800
    ),
    "timeouts.failover_delay_s": lambda config: _between(
        config.timeouts.failover_delay_s, 0, 604_800
    ),
    "placement.segment_max": lambda config: _between(
        config.placement.segment_max_bytes, SEGMENT_MAX_LEAST_BYTES, SEGMENT_MAX_MOST_BYTES
    ),
}


# --- refusals -----------------------------------------------------------------------------


def _refusal(file: Path, text: str, tables: dict[str, Any], said: str) -> InvalidError:
    match = _AT.fullmatch(said)
    what, where = (match[1], match[2] or "") if match else (said, "")
    unknown = _UNKNOWN.fullmatch(what)
    if unknown is not None:
        key = f"{where}.{unknown[1]}" if where else unknown[1]
        return _unknown_key(file, text, key)
    return _wrong_value(file, text, tables, re.sub(r"\[.*", "", where))


def _unknown_key(file: Path, text: str, key: str) -> InvalidError:
    near = difflib.get_close_matches(key, RIGHT, 1) or [
        known for known in RIGHT if known.rpartition(".")[2] == key.rpartition(".")[2]
    ]
    table = key.rpartition(".")[0]
    known = [name for name in RIGHT if name.rpartition(".")[0] == table]
    hint = f"did you mean {near[0]}?" if near else f"the keys here are {', '.join(known)}"
    return InvalidError(f"{_place(file, text, key)}: there is no option {key}", hint=hint)


def _wrong_value(file: Path, text: str, tables: dict[str, Any], key: str) -> InvalidError:
    value: Any = tables
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return InvalidError(
        f"{_place(file, text, key)}: {key} cannot be {_shown(value)}",
        hint=f"write {RIGHT.get(key, 'what the shipped example file shows')}",
    )


def _shown(value: object) -> str:
    text = "a table" if isinstance(value, dict) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _place(file: Path, text: str, key: str) -> str:
    """ "FILE, line N", or only the file where the key is written in a way not looked for."""
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TABLE_LINE.match(line):
            table = header[1] + "."
            found = header[1]
        elif entry := _KEY_LINE.match(line):
            found = table + ".".join(part for part in entry.groups() if part)
        else:
            continue
        if found == key:
            return f"{file}, line {number}"
    return str(file)

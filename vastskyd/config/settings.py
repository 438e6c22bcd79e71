"""What can be set: the settings, their defaults and limits, and when a change takes effect."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec

from vastskyd.core.model import Duration, Encryption, Record, Role
from vastskyd.core.reaching import ADDRESSES_MAX, PORT_MAX, own_address
from vastskyd.core.units import GIB, TIB, parse_size

DEFAULT_PATH = Path("/etc/vastsky/vastskyd.toml")

SEGMENT_MAX_LEAST_BYTES = GIB
SEGMENT_MAX_MOST_BYTES = 16 * TIB

# Each key of each table, and what may stand there: the hint of every refusal.
RIGHT: dict[str, str] = {
    "state_dir": 'an absolute directory, as in state_dir = "/var/lib/vastsky"',
    "runtime_dir": 'an absolute directory, as in runtime_dir = "/run/vastsky"',
    "roles": 'a list of "manager", "storage" and "head", each once',
    "addresses": "a list of this host's own IP addresses, one per data network, at most 4"
    ' (0.0.0.0, :: and multicast are no host\'s own), as in ["10.0.1.7", "10.0.2.7"]',
    "port": "a TCP port from 1 to 65535",
    "rack": 'at most 63 letters, digits, ".", "_" and "-", as in rack = "r12"',
    "log_level": '"debug", "info", "warning" or "error"',
    "auto_enroll": "a list of at most 64 patterns of names in /dev/disk/by-id or /dev/disk/by-path,"
    ' as in ["/dev/disk/by-id/nvme-*"]',
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
    "smart": "a table: [smart]",
    "smart.interval_s": "seconds from 10 to 604800 (a week), or 0 for never",
    "smart.reallocated": "a number of sectors from 1 to 1000000, or 0 for no warning",
    "smart.pending": "a number of sectors from 1 to 1000000, or 0 for no warning",
    "smart.media_errors": "a number of errors from 1 to 1000000, or 0 for no warning",
    "smart.wear_percent": "percent from 1 to 255; a disk may outlive 100",
    "smart.temperature_c": "degrees Celsius from 20 to 120",
    "smart.forget_d": "days from 1 to 3650",
    "placement": "a table: [placement]",
    "placement.segment_max": 'a size from "1G" to "16T", as in segment_max = "64G"',
    "placement.data_encryption": '"tls" or "none"',
}


class Effect(StrEnum):
    """When a new value is used."""

    RELOAD = "reload"  # `systemctl reload vastskyd` is enough
    RESTART = "restart"
    JOIN = "join"  # read when the host makes or joins a cluster; it keeps what it had then


EFFECTS: dict[str, Effect] = {
    "state_dir": Effect.RESTART,
    "runtime_dir": Effect.RESTART,
    "roles": Effect.JOIN,
    "addresses": Effect.JOIN,
    "port": Effect.JOIN,
    "rack": Effect.JOIN,
    "log_level": Effect.RELOAD,
    "auto_enroll": Effect.RELOAD,
    "timeouts.leg_timeout_s": Effect.RELOAD,
    "timeouts.heartbeat_s": Effect.RESTART,
    "timeouts.dead_after_s": Effect.RESTART,
    "timeouts.rebuild_delay_s": Effect.RELOAD,
    "timeouts.failover_delay_s": Effect.RELOAD,
    "rebuild.per_disk": Effect.RELOAD,
    "rebuild.rate_min_kib_s": Effect.RELOAD,
    "rebuild.rate_max_kib_s": Effect.RELOAD,
    "scrub.interval_h": Effect.RELOAD,
    "smart.interval_s": Effect.RELOAD,
    "smart.reallocated": Effect.RELOAD,
    "smart.pending": Effect.RELOAD,
    "smart.media_errors": Effect.RELOAD,
    "smart.wear_percent": Effect.RELOAD,
    "smart.temperature_c": Effect.RELOAD,
    "smart.forget_d": Effect.RELOAD,
    "placement.segment_max": Effect.RELOAD,
    "placement.data_encryption": Effect.JOIN,
}

AUTO_ENROLL_MAX = 64
# Not /dev/sd*: such a name is another disk's after the next boot.
_DISK_PATTERN = re.compile(r"/dev/disk/by-(id|path)/[^/\s]+")
_RACK = re.compile(r"[A-Za-z0-9._-]{0,63}")


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

    leg_timeout_s: Duration = 5.0
    heartbeat_s: Duration = 2.0
    dead_after_s: Duration = 6.0
    rebuild_delay_s: Duration = 600.0
    failover_delay_s: Duration = 5.0


class Rebuild(Record):
    """How hard repair pushes: at `rate_min_kib_s` while the volume is in use, else at up to
    `rate_max_kib_s`, which wins where it is the lower."""

    per_disk: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    rate_min_kib_s: Annotated[int, msgspec.Meta(ge=0, le=100_000_000)] = 32_768
    rate_max_kib_s: Annotated[int, msgspec.Meta(ge=1024, le=100_000_000)] = 200_000


class Scrub(Record):
    """How often each volume's copies are compared; 0: only when somebody asks."""

    interval_h: Annotated[int, msgspec.Meta(ge=0, le=87_600)] = 672


class Smart(Record):
    """How often a storage host asks its disks for their health (0: never), and from where on the
    manager warns. Of errors those count that came since the disk was enrolled, or since they last
    stopped growing for `forget_d` days; 0: it does not warn of them."""

    interval_s: Duration = 1800.0
    reallocated: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 1
    pending: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 1
    media_errors: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 1
    wear_percent: Annotated[int, msgspec.Meta(ge=1, le=255)] = 90
    temperature_c: Annotated[int, msgspec.Meta(ge=20, le=120)] = 65
    forget_d: Annotated[int, msgspec.Meta(ge=1, le=3650)] = 30


class Placement(Record):
    """How new volumes are cut. `data_encryption` is read once, by `cluster init`."""

    segment_max: str = "64G"
    data_encryption: Encryption = Encryption.TLS

    @property
    def segment_max_bytes(self) -> int:
        return parse_size(self.segment_max)


class Config(Record):
    """`roles` None and `addresses` empty: as `cluster init` or the join token say. `auto_enroll`:
    which of this host's disks are taken in by themselves, if they are empty."""

    state_dir: str = "/var/lib/vastsky"
    runtime_dir: str = "/run/vastsky"
    roles: tuple[Role, ...] | None = None
    addresses: tuple[str, ...] = ()
    port: Annotated[int, msgspec.Meta(ge=1, le=PORT_MAX)] = 8884
    rack: str = ""
    log_level: LogLevel = LogLevel.INFO
    auto_enroll: tuple[str, ...] = ()
    timeouts: Timeouts = Timeouts()
    rebuild: Rebuild = Rebuild()
    scrub: Scrub = Scrub()
    smart: Smart = Smart()
    placement: Placement = Placement()

    def value_of(self, key: str) -> object:
        """Of a setting, by its dotted key."""
        value: object = self
        for part in key.split("."):
            value = getattr(value, part)
        return value

    @property
    def state_path(self) -> Path:
        return Path(self.state_dir)

    @property
    def runtime_path(self) -> Path:
        return Path(self.runtime_dir)


# --- what a type alone cannot check -------------------------------------------------------


def _absolute(directory: str) -> None:
    if not Path(directory).is_absolute() or "\0" in directory:
        raise ValueError


def _check_addresses(config: Config) -> None:
    for address in config.addresses:
        own_address(address)


def _check_auto_enroll(config: Config) -> None:
    if not all(_DISK_PATTERN.fullmatch(pattern) for pattern in config.auto_enroll):
        raise ValueError


def _check_smart_interval(config: Config) -> None:
    if config.smart.interval_s != 0:
        _between(config.smart.interval_s, 10, 604_800)


def _check_rack(config: Config) -> None:
    if not _RACK.fullmatch(config.rack):
        raise ValueError


CHECKS: dict[str, Callable[[Config], None]] = {
    "state_dir": lambda config: _absolute(config.state_dir),
    "runtime_dir": lambda config: _absolute(config.runtime_dir),
    "addresses": _check_addresses,
    "rack": _check_rack,
    "auto_enroll": _check_auto_enroll,
    "timeouts.leg_timeout_s": lambda config: _between(config.timeouts.leg_timeout_s, 1, 600),
    "timeouts.heartbeat_s": lambda config: _between(config.timeouts.heartbeat_s, 0.2, 60),
    "timeouts.dead_after_s": lambda config: _between(config.timeouts.dead_after_s, 1, 600),
    "timeouts.rebuild_delay_s": lambda config: _between(
        config.timeouts.rebuild_delay_s, 0, 604_800
    ),
    "timeouts.failover_delay_s": lambda config: _between(
        config.timeouts.failover_delay_s, 0, 604_800
    ),
    "smart.interval_s": _check_smart_interval,
    "placement.segment_max": lambda config: _between(
        config.placement.segment_max_bytes, SEGMENT_MAX_LEAST_BYTES, SEGMENT_MAX_MOST_BYTES
    ),
}


@dataclass(frozen=True)
class Several:
    """How many elements a list may have, each right for itself; those that are the `same` are one
    too many."""

    least: int = 0
    most: int = 64
    same: Callable[[str], object] | None = None


LISTS = {
    "roles": Several(least=1, same=str),
    "addresses": Several(most=ADDRESSES_MAX, same=own_address),
    "auto_enroll": Several(most=AUTO_ENROLL_MAX),
}


# --- what settings must say together --------------------------------------------------------


@dataclass(frozen=True)
class Combination:
    """`fits` is asked of settings that are right each for itself; `wrong` has their values put
    in, `right` says what would do."""

    keys: tuple[str, str]
    fits: Callable[[Config], bool]
    wrong: str
    right: str


COMBINATIONS = (
    Combination(
        keys=("timeouts.dead_after_s", "timeouts.heartbeat_s"),
        fits=lambda config: config.timeouts.dead_after_s >= 2 * config.timeouts.heartbeat_s,
        wrong="{0} would hold a host for dead after one late heartbeat ({1})",
        right="write a dead_after_s that is at least twice heartbeat_s",
    ),
    Combination(
        keys=("state_dir", "runtime_dir"),
        fits=lambda config: not config.state_path.is_relative_to(config.runtime_path),
        wrong="{0} is where things may vanish at a reboot ({1})",
        right="write directories of which state_dir is not within runtime_dir",
    ),
)

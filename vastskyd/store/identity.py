"""Who this host is in its cluster: `node.json` in the state directory.

Written once when the host joins, and again when the manager tells of new addresses; without it
a host belongs to no cluster.
"""

import contextlib
import os
from pathlib import Path

import msgspec

from vastskyd.core.decoding import DECODE_ERRORS
from vastskyd.core.errors import DamagedError, DeviceError
from vastskyd.core.ids import ClusterId, NodeId
from vastskyd.core.model import Record, Role

FILE_NAME = "node.json"


class Identity(Record):
    """`addresses` has one address per data network. The manager's own identity names itself."""

    cluster: ClusterId
    cluster_name: str
    node: NodeId
    roles: tuple[Role, ...]
    addresses: tuple[str, ...]
    port: int
    rack: str
    manager: NodeId
    manager_addresses: tuple[str, ...]
    manager_port: int


def load(state_dir: Path) -> Identity | None:
    """None: this host is in no cluster. DamagedError: the file is there and is not an identity."""
    path = state_dir / FILE_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DeviceError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return msgspec.json.decode(content, type=Identity)
    except DECODE_ERRORS as error:
        raise DamagedError(
            f"{path}: not this host's identity: {error}",
            hint="restore the file from a backup, or remove it and join the cluster again",
        ) from error


def save(state_dir: Path, identity: Identity) -> None:
    """Durable when it returns; after a crash on the way the file is the old one or the new one."""
    path = state_dir / FILE_NAME
    temporary = state_dir / (FILE_NAME + ".new")
    content = msgspec.json.format(msgspec.json.encode(identity), indent=2) + b"\n"
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(state_dir)
    except OSError as error:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            temporary.unlink(missing_ok=True)
        raise DeviceError(
            f"{path}: cannot be written: {error.strerror}",
            hint=f"make room in {state_dir}, and see that it can be written: `df {state_dir}`",
        ) from error


def sync_directory(directory: Path) -> None:
    """The names in the directory survive a power cut from here on."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

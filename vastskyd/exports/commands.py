"""What is said to an export server, and what is read out of its answers: values only.

All that vastskyd must know of a running server after a restart of its own stands in the server
itself: an export's id carries epoch and name, its node's name the extent, and a small object the
server's settings. QEMU allows letters, digits and "-._" in ids, and 31 bytes of node name.
"""

import re
from pathlib import Path
from typing import Any

import msgspec

from vastskyd.core.decoding import DECODE_ERRORS
from vastskyd.core.errors import DamagedError, InvalidError
from vastskyd.core.ids import ExtentId, NodeId
from vastskyd.core.model import Encryption, Record
from vastskyd.ports import Export, ExportServer

SETTINGS_ID = "vastsky-settings"
_TLS_ID = "vastsky-tls"
_AUTHZ_ID = "vastsky-authz"

# Linux AIO, not io_uring: some distributions and administrators switch io_uring off
# (kernel.io_uring_disabled), and with cache.direct both keep the queue full.
AIO = "native"

# QEMU's own default is 100 in newer versions. A head has a connection per extent and network.
_CONNECTIONS_MAX = 8192

_EXPORT_ID = re.compile(r"e-(\d{1,19})-([A-Za-z0-9._-]{1,200})")
_EXTENT = re.compile(r"[0-9a-f]{16}")

Command = tuple[str, dict[str, Any]]


class _Settings(Record):
    port: int
    addresses: tuple[str, ...]
    encryption: Encryption


def start_server(server: ExportServer, tls_dir: Path) -> tuple[Command, ...]:
    """Makes an idle daemon the head's server. The settings come last: where they stand, all of it
    was done."""
    options: dict[str, Any] = {"max-connections": _CONNECTIONS_MAX}
    commands: list[Command] = []
    if server.encryption is Encryption.TLS:
        commands = [_credentials(tls_dir), _authorization(server.head)]
        options |= {"tls-creds": _TLS_ID, "tls-authz": _AUTHZ_ID}
    inet = {"host": listen_host(server.addresses), "port": str(server.port)}
    options["addr"] = {"type": "inet", "data": inet}
    return (*commands, ("nbd-server-start", options), write_settings(server))


def _credentials(tls_dir: Path) -> Command:
    """The directory holds ca-cert.pem, server-cert.pem and server-key.pem: QEMU's names."""
    return "object-add", {
        "qom-type": "tls-creds-x509",
        "id": _TLS_ID,
        "dir": str(tls_dir),
        "endpoint": "server",
        "verify-peer": True,
        # A session ticket sent after the handshake would reach a kernel that reads NBD.
        "priority": "NORMAL:%NO_TICKETS",
    }


def _authorization(head: NodeId) -> Command:
    rule = {"match": f"CN={head}", "policy": "allow", "format": "exact"}
    return "object-add", {
        "qom-type": "authz-list",
        "id": _AUTHZ_ID,
        "policy": "deny",
        "rules": [rule],
    }


def listen_host(addresses: tuple[str, ...]) -> str:
    """All of this host's addresses; with an empty host QEMU listens on IPv6 as well."""
    return "" if any(":" in address for address in addresses) else "0.0.0.0"  # noqa: S104


def write_settings(server: ExportServer) -> Command:
    settings = _Settings(port=server.port, addresses=server.addresses, encryption=server.encryption)
    return "object-add", {
        "qom-type": "authz-simple",
        "id": SETTINGS_ID,
        "identity": msgspec.json.encode(settings).decode(),
    }


def read_settings(head: NodeId, text: object) -> ExportServer:
    """DamagedError: not what write_settings wrote."""
    try:
        settings = msgspec.json.decode(str(text), type=_Settings)
    except DECODE_ERRORS as error:
        raise DamagedError(f"the settings of the export server for {head}: {error}") from error
    return ExportServer(head, settings.port, settings.addresses, settings.encryption)


def node_name(extent: ExtentId) -> str:
    return f"x-{extent}"


def export_id(export: Export) -> str:
    """InvalidError: the export has a name that QEMU could not give back."""
    text = f"e-{export.epoch}-{export.name}"
    if not (_EXPORT_ID.fullmatch(text) and _EXTENT.fullmatch(export.extent)):
        raise InvalidError(f"an export cannot be named {export.extent!r}, {export.name!r}")
    return text


def add_node(export: Export, device: str) -> Command:
    """Discards are not passed on: on disks that return anything but zeros for discarded blocks, the
    legs of a segment would differ, and every scrub would report it.
    """
    return "blockdev-add", {
        "driver": "raw",
        "node-name": node_name(export.extent),
        "discard": "ignore",
        "detect-zeroes": "off",
        "cache": {"direct": True, "no-flush": False},
        "file": {
            "driver": "host_device",
            "filename": device,
            "aio": AIO,
            "cache": {"direct": True, "no-flush": False},
        },
    }


def add_export(export: Export) -> Command:
    """Writes are durable before they are answered, whatever the disk's own cache holds back. A
    storage host that loses its power, or a disk that does, may be there again before its leg was
    given up: then nobody fills in what it forgot, and the head's next flush would be answered."""
    return "block-export-add", {
        "type": "nbd",
        "id": export_id(export),
        "node-name": node_name(export.extent),
        "name": export.name,
        "writable": True,
        "writethrough": True,
    }


def read_exports(head: NodeId, answer: object) -> tuple[Export, ...]:
    """Of query-block-exports: those being shut down as well, for they still reach the device.

    DamagedError: the server serves something that vastskyd did not name.
    """
    if not isinstance(answer, list):
        raise DamagedError(f"the export server for {head} did not answer with a list")
    return tuple(_read_export(head, item) for item in answer)


def _read_export(head: NodeId, item: object) -> Export:
    members = item if isinstance(item, dict) else {}
    match = _EXPORT_ID.fullmatch(str(members.get("id")))
    extent = str(members.get("node-name")).removeprefix("x-")
    if match is None or not _EXTENT.fullmatch(extent):
        raise DamagedError(f"the export server for {head} serves something unknown: {item}")
    return Export(head, ExtentId(extent), int(match[1]), match[2])


def is_shutting_down(answer: object, export: Export) -> bool:
    """Of query-block-exports: was its removal begun?"""
    items = answer if isinstance(answer, list) else []
    return any(
        item.get("id") == export_id(export) and item.get("shutting-down") is True
        for item in items
        if isinstance(item, dict)
    )

"""A guest that was booted, warmed and saved once; every lab's guests are copies of it."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .emulator import Emulator, Machine, choose_accel, command_line, ensure_emulator
from .guest import Guest
from .host import LabError, build_once, digest, run_host, say
from .image import Image, ensure_image
from .lines import Monitor
from .network import Segments

CAPABILITY = [{"capability": "x-ignore-shared", "state": True}]
DEFAULT_MEMORY_MIB = 384

MODULES = (
    "nbd dm-mod dm-multipath dm-round-robin dm-queue-length dm-service-time dm-mirror dm-log "
    "dm-region-hash dm-raid dm-delay dm-flakey dm-snapshot raid1 raid456 raid10 tls loop "
    "iscsi_tcp target_core_mod iscsi_target_mod target_core_iblock configfs xfs nvme_fabrics"
)

WARM = f"""
set -e
systemctl is-system-running --wait || true
for m in {MODULES}; do modprobe $m; done
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
udevadm settle
cat > /tmp/warm.py <<'END'
import asyncio, concurrent.futures, ctypes, dataclasses, ipaddress, json, logging, sqlite3, ssl
import tomllib, typing, uuid
import click, cryptography.x509, dbus_next.aio, dbus_next.service, msgspec, pyudev, rich.console
import rich.progress, rich.table, pyroute2, systemd.daemon, systemd.journal
import cryptography.hazmat.primitives.asymmetric.ec, cryptography.hazmat.primitives.serialization
ssl.create_default_context()
asyncio.run(asyncio.sleep(0))
END
python3 /tmp/warm.py
rm /tmp/warm.py
systemctl start dbus polkit
busctl list >/dev/null
mdadm --version 2>/dev/null
mdadm --detail --scan
dmsetup version >/dev/null
dmsetup ls >/dev/null
qemu-storage-daemon --version >/dev/null
smartctl --version >/dev/null
nvme list >/dev/null
dpkg -s systemd >/dev/null
systemctl daemon-reload
udevadm control --reload
udevadm settle
sync
"""


@dataclass(frozen=True)
class Template:
    """A saved guest."""

    key: str
    image: Image
    emulator: Emulator
    accel: str
    memory_mib: int
    memory: Path
    state: Path
    overlay: Path
    packages: tuple[str, ...] = ()


def wait_migration(monitor: Monitor, what: str, timeout_s: float = 60) -> None:
    """Wait until a save or a restore is complete."""
    end = time.monotonic() + timeout_s
    while True:
        info: dict[str, Any] = monitor.execute("query-migrate")
        status = info.get("status")
        if status == "completed":
            return
        if status in ("failed", "cancelled"):
            raise LabError(f"{what}: {status}: {info.get('error-desc', '')}")
        if time.monotonic() > end:
            raise LabError(f"{what}: {status} after {timeout_s:.0f} s")
        time.sleep(0.01)


def save(monitor: Monitor, state: Path) -> None:
    """Stop the guest and write its devices' state; its memory is in its file already."""
    monitor.execute("stop")
    monitor.execute("migrate-set-capabilities", capabilities=CAPABILITY)
    monitor.execute("migrate", uri=f"file:{state}")
    wait_migration(monitor, "saving the template")
    monitor.execute("quit")


def restore(monitor: Monitor, state: Path) -> None:
    """Load a saved guest's devices; the guest stays stopped."""
    monitor.execute("migrate-set-capabilities", capabilities=CAPABILITY)
    monitor.execute("migrate-incoming", uri=f"file:{state}")
    wait_migration(monitor, "restoring the template")


def make_overlay(emulator: Emulator, backing: Path, kind: str, overlay: Path) -> None:
    """An empty overlay over a disk that may not have got its final name yet."""
    make = [*emulator.image_tool, "create", "-q", "-f", "qcow2", "-u", "-F", kind]
    run_host([*make, "-b", backing, overlay, "2048M"], env=emulator.environment)


def build(work: Path, final: Path, image: Image, emulator: Emulator, accel: str, mib: int) -> None:
    """Boot, warm and save one guest."""
    disk = work / "disk.qcow2"
    make_overlay(emulator, image.golden, "raw", disk)
    segments = Segments(f"vastsky-lab-template-{final.name.rpartition('-')[2]}")
    segments.down()
    segments.up(1)
    machine = Machine(
        folder=work,
        image=image,
        root_disk=disk,
        memory_mib=mib,
        memory_file=work / "memory",
        share_memory=True,
        nics=segments.nics(0),
        accel=accel,
    )
    guest = Guest("template", 0, machine, emulator, segments)
    try:
        begun = time.monotonic()
        monitor = guest.start(incoming=False)
        guest.connect_agent(300)
        say(f"template: booted in {time.monotonic() - begun:.0f} s ({accel})")
        guest.set_clock(time.time())
        guest.run(WARM, timeout_s=600)
        say(f"template: warm after {time.monotonic() - begun:.0f} s")
        save(monitor, work / "state")
    except LabError as error:
        raise LabError(f"{error}\n{guest.last_words()}") from error
    finally:
        guest.kill()
        segments.down()
    make_overlay(emulator, final / "disk.qcow2", "qcow2", work / "overlay.qcow2")


def ensure_template(memory_mib: int = DEFAULT_MEMORY_MIB) -> Template:
    """The template for this lab and this much memory; made when it is not in the cache."""
    emulator = ensure_emulator()
    image = ensure_image()
    accel = choose_accel(emulator, image)
    key = template_key(emulator, image, accel, memory_mib)
    final = build_once(
        "template",
        key,
        f"making the template guest, {memory_mib} MiB, {accel} (about 60 s, once)",
        lambda work: build(
            work, work.with_name(f"template-{key}"), image, emulator, accel, memory_mib
        ),
    )
    return Template(
        key,
        image,
        emulator,
        accel,
        memory_mib,
        final / "memory",
        final / "state",
        final / "overlay.qcow2",
    )


def template_key(emulator: Emulator, image: Image, accel: str, memory_mib: int) -> str:
    """What a template depends on: image, emulator, its command line, what warms it."""
    probe = Machine(
        folder=Path("/f"),
        image=image,
        root_disk=Path("/r"),
        memory_mib=memory_mib,
        memory_file=Path("/m"),
        share_memory=True,
        nics=Segments("n").nics(0),
        accel=accel,
    )
    line = " ".join(command_line(replace(emulator, prefix=()), probe))
    return digest(image.key, emulator.version, line, WARM)


def copy_of(template: Template, folder: Path) -> Path:
    """A fresh overlay on the template's disk, in a guest's folder."""
    disk = folder / "root.qcow2"
    shutil.copyfile(template.overlay, disk)
    return disk

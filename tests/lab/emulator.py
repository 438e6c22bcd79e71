"""QEMU 10: where it is, whether KVM serves, and the command line of one guest."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .host import (
    LabError,
    build_once,
    cache_dir,
    digest,
    read_json,
    require_host,
    run_host,
    say,
    write_json,
)
from .image import Image

SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"
TREE_PACKAGES = "qemu-system-x86,qemu-utils,seabios,ipxe-qemu"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
# What is translated is thrown away as a whole when this is full: with 64 MiB twice a minute where
# Python programs come and go, and each time it takes seconds to have it again.
TCG_CODE_MIB = 512
CPU = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+aes,+pclmulqdq"
"""Of the emulated CPU: its AES is done by the AES instructions of this machine."""
PORTS = 8
"""Root ports of a guest: so many disks can be plugged at one time."""

KERNEL_OPTIONS = (
    "console=ttyS0 root=/dev/vda rw mitigations=off tsc=reliable no_timer_check nokaslr "
    "random.trust_cpu=on audit=0 apparmor=0 cgroup_disable=memory raid=noautodetect "
    "net.ifnames=0 systemd.show_status=0 quiet panic=-1"
)


@dataclass(frozen=True)
class Emulator:
    """A QEMU that can run the guests."""

    prefix: tuple[str, ...]
    image_tool: tuple[str, ...]
    environment: dict[str, str]
    version: str


@dataclass(frozen=True)
class Nic:
    """One network card: the tap on this machine and the guest's address."""

    tap: str
    mac: str


@dataclass(frozen=True)
class Plugged:
    """A disk in one of the guest's root ports."""

    name: str
    file: Path
    serial: str
    port: int


@dataclass(frozen=True)
class Machine:
    """All that a guest's command line depends on."""

    folder: Path
    image: Image
    root_disk: Path
    memory_mib: int
    memory_file: Path | None
    share_memory: bool
    nics: tuple[Nic, ...]
    accel: str
    incoming: bool = False
    disks: tuple[Plugged, ...] = field(default=())


def ensure_emulator() -> Emulator:
    """QEMU 10 or newer: the installed one, or an unpacked tree beside an older system."""
    require_host()
    installed = shutil.which("qemu-system-x86_64")
    if installed is not None and shutil.which("qemu-img") is not None:
        version = run_host([installed, "--version"]).split()[3].decode()
        if int(version.split(".")[0]) >= 10:
            return Emulator((installed,), ("qemu-img",), {}, version)
    tree = build_once(
        "qemu",
        digest(SUITE, MIRROR, TREE_PACKAGES),
        "unpacking QEMU 10 of Debian 13 (about 10 s, once)",
        unpack_tree,
    )
    root = tree / "tree"
    libraries = root / LIBRARIES
    loader = (str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries))
    data = ("-L", str(root / "usr/share/qemu"), "-L", str(root / "usr/share/seabios"))
    environment = {"QEMU_MODULE_DIR": str(libraries / "qemu")}
    qemu = (*loader, str(root / "usr/bin/qemu-system-x86_64"))
    version = run_host([*qemu, "--version"], env=environment).split()[3].decode()
    return Emulator((*qemu, *data), (*loader, str(root / "usr/bin/qemu-img")), environment, version)


def unpack_tree(work: Path) -> None:
    """Unpack QEMU and its libraries without installing them."""
    argv = ["mmdebstrap", "--variant=extract", "--quiet", f"--include={TREE_PACKAGES}"]
    run_host([*argv, SUITE, work / "tree", MIRROR], timeout_s=600)
    for name in ("usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(work / "tree" / name, ignore_errors=True)


def accel_arguments(accel: str) -> list[str]:
    """The arguments that choose hardware or software emulation."""
    if accel == "kvm":
        return ["-accel", "kvm", "-cpu", "host,-vmx,-svm"]
    return ["-accel", f"tcg,thread=multi,tb-size={TCG_CODE_MIB}", "-cpu", CPU]


def kernel_arguments(image: Image, more: str = "") -> list[str]:
    """The arguments that boot the image's kernel directly."""
    options = f"{KERNEL_OPTIONS} {more}".strip()
    return ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", options]


def nvme_options(disk: Plugged) -> dict[str, str]:
    """The device of a plugged disk."""
    return {
        "driver": "nvme",
        "id": f"disk-{disk.name}",
        "serial": disk.serial,
        "drive": f"file-{disk.name}",
        "bus": f"rp{disk.port}",
    }


def block_options(disk: Plugged) -> dict[str, object]:
    """The file behind a plugged disk: what the guest wrote survives the emulator's death."""
    return {
        "driver": "file",
        "node-name": f"file-{disk.name}",
        "filename": str(disk.file),
        "cache": {"direct": False, "no-flush": True},
        "discard": "unmap",
        "detect-zeroes": "unmap",
    }


def bad_block_options(
    disk: Plugged, sectors: Sequence[int], kinds: Sequence[str]
) -> dict[str, object]:
    """A filter over a disk's file that fails some sectors (all of them when none is named)."""
    places: list[dict[str, int]] = [{"sector": sector} for sector in sectors] or [{}]
    rules = [
        {"event": "none", "errno": 5, "iotype": kind, "immediately": True, **place}
        for place in places
        for kind in kinds
    ]
    return {
        "driver": "blkdebug",
        "node-name": f"bad-{disk.name}",
        "image": f"file-{disk.name}",
        "inject-error": rules,
    }


def flat(options: dict[str, object], prefix: str = "") -> str:
    """QMP options in the form of the command line."""
    parts = []
    for key, value in options.items():
        if isinstance(value, dict):
            parts.append(flat(value, f"{prefix}{key}."))
        else:
            text = ("off", "on")[value] if isinstance(value, bool) else str(value)
            parts.append(f"{prefix}{key}={text}")
    return ",".join(parts)


def socket_arguments(folder: Path) -> list[str]:
    """Monitor, console, agent and shell."""
    arguments = [
        "-chardev", f"socket,id=qmp,path={folder / 'qmp.sock'},server=on,wait=off",
        "-mon", "chardev=qmp,mode=control",
        "-chardev", f"file,id=console,path={folder / 'console.log'},append=on",
        "-serial", "chardev:console",
        "-device", "virtio-serial-pci,id=ports,addr=4,max_ports=4",
    ]  # fmt: skip
    for number, name in enumerate(("agent", "shell"), 1):
        path = folder / f"{name}.sock"
        arguments += ["-chardev", f"socket,id={name},path={path},server=on,wait=off"]
        port = f"virtserialport,bus=ports.0,nr={number},chardev={name},name=vastsky.{name}"
        arguments += ["-device", port]
    return arguments


def memory_arguments(machine: Machine) -> list[str]:
    """The guest's memory: a template's is a file, copies of it share that file's pages."""
    backend = f"id=mem,size={machine.memory_mib}M"
    if machine.memory_file is None:
        kind = f"memory-backend-ram,{backend}"
    else:
        share = "on" if machine.share_memory else "off"
        kind = f"memory-backend-file,{backend},share={share},mem-path={machine.memory_file}"
    return ["-m", str(machine.memory_mib), "-object", kind]


def command_line(emulator: Emulator, machine: Machine) -> list[str]:
    """QEMU's whole command line; the same for a template, a copy of it and a real boot."""
    arguments = [
        *emulator.prefix,
        "-nodefaults", "-no-user-config", "-display", "none", "-name", machine.folder.name,
        *accel_arguments(machine.accel),
        "-smp", "1", *memory_arguments(machine),
        "-machine", "q35,memory-backend=mem,usb=off,vmport=off,smbus=off,sata=off",
        *kernel_arguments(machine.image),
        *socket_arguments(machine.folder),
        "-blockdev", f"driver=qcow2,node-name=root,file.driver=file,file.filename="
        f"{machine.root_disk},cache.no-flush=on,file.cache.no-flush=on,discard=unmap",
        "-device", "virtio-blk-pci,drive=root,addr=3",
    ]  # fmt: skip
    for number, nic in enumerate(machine.nics):
        arguments += ["-netdev", f"tap,id=tap{number},ifname={nic.tap},script=no,downscript=no"]
        device = f"virtio-net-pci,id=net{number},netdev=tap{number},mac={nic.mac},romfile="
        arguments += ["-device", f"{device},addr={5 + number}"]
    for port in range(PORTS):
        place = f"bus=pcie.0,chassis={port + 1},addr={16 + port // 8}.{port % 8}"
        place += ",multifunction=on" if port % 8 == 0 else ""
        arguments += ["-device", f"pcie-root-port,id=rp{port},{place}"]
    for disk in machine.disks:
        arguments += ["-blockdev", flat(block_options(disk))]
        arguments += ["-device", flat(dict(nvme_options(disk)))]
    if machine.incoming:
        arguments += ["-incoming", "defer", "-S"]
    return arguments


def choose_accel(emulator: Emulator, image: Image) -> str:
    """KVM when it boots the guest's kernel, software emulation otherwise."""
    wanted = os.environ.get("VASTSKY_LAB_ACCEL", "")
    if wanted in ("tcg", "kvm"):
        return wanted
    if wanted:
        raise LabError(f"VASTSKY_LAB_ACCEL={wanted}: say tcg or kvm")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    host = digest(Path("/proc/version"), Path("/proc/sys/kernel/random/boot_id"), image.release)
    known = cache_dir() / "accel.json"
    if known.exists() and (answer := read_json(known)).get("host") == host:
        return str(answer["accel"])
    accel = "kvm" if kvm_boots(emulator, image) else "tcg"
    say(f"guests run with {accel}")
    write_json(known, {"host": host, "accel": accel})
    return accel


def kvm_boots(emulator: Emulator, image: Image, limit_s: float = 15) -> bool:
    """Boot the guest's kernel as far as its initrd under KVM."""
    say("trying whether /dev/kvm boots the guest's kernel")
    arguments = [
        *emulator.prefix,
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        *accel_arguments("kvm"), "-m", "256", "-machine", "q35",
        *kernel_arguments(image, "vastsky.probe=1"),
        "-serial", "stdio",
    ]  # fmt: skip
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **emulator.environment},
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    seen = b""
    end = time.monotonic() + limit_s
    try:
        while time.monotonic() < end and process.poll() is None:
            seen += process.stdout.read() or b""
            if b"vastsky-lab-probe-ok" in seen:
                return True
            time.sleep(0.1)
        return b"vastsky-lab-probe-ok" in seen
    finally:
        process.kill()
        process.wait()

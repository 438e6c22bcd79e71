"""The guest's image: Debian's root file system, its kernel, an initrd, a golden disk."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import guestroot
from .host import LabError, build_once, digest, read_json, run_host, write_json

ROOT_MIB = 2048
INITRD_MODULES = ["failover", "net_failover", "virtio_net", "virtio_blk"]

INIT = """\
#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
if $b grep -q vastsky.probe /proc/cmdline; then
    echo vastsky-lab-probe-ok >/dev/ttyS0
    $b sleep 1
    $b poweroff -f
fi
for m in MODULES; do $b insmod /$m.ko; done
$b mount -t ext4 -o noatime /dev/vda /mnt || { echo "no root disk"; $b sleep 1; $b reboot -f; }
$b umount /proc
$b mount --move /dev /mnt/dev
exec $b switch_root /mnt /usr/lib/systemd/systemd
"""


@dataclass(frozen=True)
class Image:
    """A built image."""

    key: str
    kernel: Path
    initrd: Path
    golden: Path
    release: str


def build_root(work: Path, packages: Sequence[str]) -> None:
    """Unpack and configure Debian's packages."""
    argv = ["mmdebstrap", "--variant=minbase", "--quiet", f"--include={','.join(packages)}"]
    argv += [
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
    ]
    run_host([*argv, guestroot.SUITE, work / "root", guestroot.MIRROR], timeout_s=900)


def carve_kernel(image: bytes) -> bytes:
    """The uncompressed ELF inside a bzImage: its boot header says where the payload is."""
    if image[0x202:0x206] != b"HdrS":
        raise LabError("the guest's kernel is no bzImage")
    setup_sectors = image[0x1F1] or 4
    offset = (setup_sectors + 1) * 512 + int.from_bytes(image[0x248:0x24C], "little")
    length = int.from_bytes(image[0x24C:0x250], "little")
    payload = image[offset : offset + length - 4]
    if payload[:4] != b"\x28\xb5\x2f\xfd":
        raise LabError("the guest's kernel is not packed with zstd")
    return run_host(["zstd", "-dc"], stdin=payload)


def cpio_entry(number: int, name: str, mode: int, data: bytes) -> bytes:
    """One entry of a cpio archive in the kernel's format."""
    path = name.encode() + b"\0"
    fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0]
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + path
    head += b"\0" * (-len(head) % 4)
    return head + data + b"\0" * (-len(data) % 4)


def make_initrd(root: Path, release: str) -> bytes:
    """A small initrd: busybox, the modules the root disk needs, a few lines of shell."""
    entries = [(name, 0o40755, b"") for name in ("bin", "dev", "proc", "mnt")]
    init = INIT.replace("MODULES", " ".join(INITRD_MODULES))
    entries.append(("init", 0o100755, init.encode()))
    entries.append(("bin/busybox", 0o100755, (root / "usr/bin/busybox").read_bytes()))
    for name in INITRD_MODULES:
        (path,) = (root / "usr/lib/modules" / release).rglob(f"{name}.ko")
        entries.append((f"{name}.ko", 0o100644, path.read_bytes()))
    entries.append(("TRAILER!!!", 0, b""))
    return b"".join(cpio_entry(i, *entry) for i, entry in enumerate(entries, 1))


def copy_root(base: Path, work: Path) -> str:
    """A copy of the unpacked root to change, and beside it the kernel and the initrd that boot it;
    gives the kernel's release."""
    root = work / "root"
    run_host(["cp", "-a", "--reflink=auto", base, root], timeout_s=300)
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    release = kernel.name.removeprefix("vmlinuz-")
    guestroot.unpack_modules(root, release)
    (work / "vmlinux").write_bytes(carve_kernel(kernel.read_bytes()))
    (work / "initrd").write_bytes(make_initrd(root, release))
    return release


def make_disk(root: Path, disk: Path) -> None:
    """A disk with this root, which is used up."""
    shutil.rmtree(root / "boot")
    (root / "boot").mkdir()
    for name in guestroot.DROPPED:
        path = root / name
        if path.is_dir():
            shutil.rmtree(path)
            path.mkdir()
        else:
            path.unlink(missing_ok=True)
    subprocess.run(["truncate", "-s", f"{ROOT_MIB}M", disk], check=True)
    features = "^metadata_csum,^64bit"
    make = ["mke2fs", "-q", "-t", "ext4", "-O", features, "-J", "size=16", "-m", "0"]
    run_host([*make, "-d", root, disk], timeout_s=300)
    shutil.rmtree(root)


def build_golden(base: Path, work: Path) -> None:
    """Make the golden disk, the kernel and the initrd out of the unpacked root."""
    release = copy_root(base, work)
    guestroot.add_lab_files(work / "root")
    make_disk(work / "root", work / "golden.ext4")
    write_json(work / "image.json", {"release": release})


def ensure_image() -> Image:
    """The image for this version of the lab; built when it is not in the cache."""
    here = Path(__file__).parent
    key = digest(root_key(), here / "agent.py", here / "guestroot.py", here / "image.py")
    golden = build_once(
        "golden",
        key,
        "building guest image (about 20 s)",
        lambda work: build_golden(ensure_root(), work),
    )
    release = str(read_json(golden / "image.json")["release"])
    return Image(key, golden / "vmlinux", golden / "initrd", golden / "golden.ext4", release)


def root_key(more: Sequence[str] = ()) -> str:
    """Names the packages that a root is made of."""
    packages = " ".join([*guestroot.PACKAGES, *more])
    return digest(guestroot.SUITE, guestroot.MIRROR, packages)


def ensure_root(more: Sequence[str] = ()) -> Path:
    """The tree of the unpacked packages, with more of them if need be; downloaded when they are
    not in the cache."""
    packages = [*guestroot.PACKAGES, *more]
    final = build_once(
        "root",
        root_key(more),
        "installing Debian 13 for the guests (about 60 s, once)",
        lambda work: build_root(work, packages),
    )
    return final / "root"

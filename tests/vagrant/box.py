"""Vagrant's box: Debian 13 with all that the packages need, so that machines need no network.

Its machines boot the kernel of the lab's guests, by the lab's emulator where KVM does not serve.
Kernel and emulator stay beside the box, in the lab's cache: libvirt's processes may not read what
is in a home directory. So a box is for the computer that made it.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.lab import emulator as lab_emulator
from tests.lab import guestroot
from tests.lab.emulator import LIBRARIES, Emulator, choose_accel, ensure_emulator
from tests.lab.host import (
    LabError,
    build_once,
    digest,
    read_json,
    run_host,
    say,
    write_json,
)
from tests.lab.image import ROOT_MIB, Image, copy_root, ensure_root, make_disk, root_key

NAME = "vastsky"
MORE_PACKAGES = ("openssh-server", "sudo")
MASKED = set(guestroot.MASKED) - {
    "systemd-user-sessions.service",  # without it only root may log in
    "systemd-hostnamed.socket",  # vagrant names its machines by hostnamectl
}
LIBVIRT_NAMES = {"pclmulqdq": "pclmuldq"}
"""What libvirt calls a CPU's abilities, where it is not what QEMU does."""
HOME = "/home/vagrant"
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"

SSHD = f"""\
HostKey {HOST_KEY}
UseDNS no
"""

# Each machine has its own, and of one kind: under emulation RSA keys take long to make.
HOST_KEY_UNIT = f"""\
[Unit]
Description=Key of this host's sshd
Before=ssh.service
ConditionPathExists=!{HOST_KEY}

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -f {HOST_KEY}

[Install]
WantedBy=multi-user.target
"""

MANAGEMENT = """\
[Match]
Name=eth0

[Network]
DHCP=ipv4
"""

FILES = {
    "/etc/hostname": f"{NAME}\n",
    "/etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {NAME}\n",
    "/etc/machine-id": "",
    "/etc/locale.conf": "LANG=C.UTF-8\n",
    "/etc/default/locale": "LANG=C.UTF-8\n",
    "/etc/ssh/sshd_config.d/vagrant.conf": SSHD,
    "/etc/systemd/network/10-eth0.network": MANAGEMENT,
    "/etc/systemd/system/vastsky-host-key.service": HOST_KEY_UNIT,
}

VAGRANTFILE = """\
Vagrant.configure("2") do |config|
  config.vm.provider :libvirt do |libvirt|
    libvirt.driver = "{driver}"
    libvirt.machine_type = "q35"
    libvirt.kernel = "{folder}/vmlinux"
    libvirt.initrd = "{folder}/initrd"
    libvirt.cmd_line = "{options}"
    libvirt.disk_driver cache: "unsafe"
{more}
  end
end
"""


EMULATOR = """\
#!/bin/sh
[ "${{1:-}}" = --alone ] || exec unshare --mount "$0" --alone "$@"
shift
{hide}
exec {qemu} "$@"
"""


@dataclass(frozen=True)
class Box:
    """A box that vagrant knows; `accel`: kvm, or tcg for emulation."""

    version: str
    accel: str


def ensure_box() -> Box:
    """Make the box, unless it is there, and have vagrant know it."""
    emulator = ensure_emulator()
    folder, accel = ensure_files(emulator)
    version = str(read_json(folder / "info.json")["version"])
    box = Box(version, accel)
    if f"{NAME} (libvirt, {version}" not in vagrant("box", "list"):
        vagrant("box", "add", "--provider", "libvirt", folder / "box.json")
        vagrant("box", "prune", "--name", NAME, "--keep-active-boxes", "--force")
        say(f"box {NAME} {version} was added to vagrant; its older versions went if not in use")
    return box


def ensure_files(emulator: Emulator) -> tuple[Path, str]:
    """The folder with the box, and how its machines run."""
    disk_key = digest(root_key(MORE_PACKAGES), *sources(), *insecure_keys())
    disk = build_once(
        "boxdisk", disk_key, "building the disk of vagrant's box (about 30 s)", build_disk
    )
    release = str(read_json(disk / "image.json")["release"])
    image = Image(disk_key, disk / "vmlinux", disk / "initrd", disk / "box.img", release)
    accel = choose_accel(emulator, image)
    key = digest(disk_key, accel, *emulator.prefix, *map(str, emulator.environment.items()))

    def pack(work: Path) -> None:
        pack_box(work, work.with_name(f"box-{key}"), image, emulator, accel)

    return build_once("box", key, "packing the box (about 10 s)", pack), accel


def sources() -> list[Path]:
    """What the content of the box depends on."""
    lab = Path(guestroot.__file__).parent
    return [Path(__file__), lab / "guestroot.py", lab / "image.py", lab / "emulator.py"]


def insecure_keys() -> list[Path]:
    """The keys that all know, as vagrant ships them: it puts one of its own in their place."""
    listed = run_host(["dpkg", "-L", "vagrant"]).decode()
    found = re.findall(r"^/.*/keys/vagrant\.pub.*$", listed, re.M)
    keys = sorted(path for path in map(Path, found) if path.is_file())
    if not keys:
        raise LabError("Debian's package vagrant has no keys/vagrant.pub*: is it installed?")
    return keys


def build_disk(work: Path) -> None:
    """A disk image, the kernel and the initrd."""
    release = copy_root(ensure_root(MORE_PACKAGES), work)
    add_files(work / "root")
    make_disk(work / "root", work / "disk.raw")
    convert = [*ensure_emulator().image_tool, "convert", "-O", "qcow2"]
    run_host(
        [*convert, work / "disk.raw", work / "box.img"],
        timeout_s=300,
        env=ensure_emulator().environment,
    )
    (work / "disk.raw").unlink()
    write_json(work / "image.json", {"release": release})


def add_files(root: Path) -> None:
    """What vagrant expects of a machine: its user, sudo without a password, sshd, networkd."""
    for name, text in FILES.items():
        guestroot.write_file(root, name, text)
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    guestroot.write_file(root, "/etc/sudoers.d/vagrant", "vagrant ALL=(ALL) NOPASSWD: ALL\n", 0o440)
    add_user = ["useradd", "--create-home", "--shell", "/bin/bash", "--password", "*", "vagrant"]
    run_host(["chroot", root, *add_user])
    keys = "".join(path.read_text().strip() + "\n" for path in insecure_keys())
    guestroot.write_file(root, f"{HOME}/.ssh/authorized_keys", keys, 0o600)
    (root / HOME.lstrip("/") / ".ssh").chmod(0o700)
    run_host(["chroot", root, "chown", "-R", "vagrant:vagrant", f"{HOME}/.ssh"])
    guestroot.mask(root, MASKED)
    guestroot.want(root, "multi-user.target", "vastsky-host-key.service")
    run_host(["chroot", root, "systemctl", "enable", "systemd-networkd.service"])


def pack_box(work: Path, final: Path, image: Image, emulator: Emulator, accel: str) -> None:
    """The box as vagrant reads it, and beside it what its machines are started with."""
    for path in (image.kernel, image.initrd):
        shutil.copy(path, work)
    own_emulator = bool(emulator.environment)
    if own_emulator:
        write_emulator(emulator, work / "emulator")
    text = vagrantfile(final, accel, own_emulator=own_emulator)
    (work / "Vagrantfile").write_text(text)
    about = {"provider": "libvirt", "format": "qcow2", "virtual_size": -(-ROOT_MIB // 1024)}
    write_json(work / "metadata.json", about)
    with tarfile.open(work / "libvirt.box", "w") as archive:
        for path in (work / "metadata.json", work / "Vagrantfile", image.golden):
            archive.add(path, path.name)
    now = time.gmtime()
    version = f"{time.strftime('%Y%m%d', now)}.{int(time.strftime('%H%M%S', now))}"
    providers = [{"name": "libvirt", "url": f"file://{final}/libvirt.box"}]
    known = {"name": NAME, "versions": [{"version": version, "providers": providers}]}
    write_json(work / "box.json", known)
    write_json(work / "info.json", {"version": version})


def write_emulator(emulator: Emulator, path: Path) -> None:
    """What libvirt starts where the system's QEMU is not the one. libvirt asks of more parts than a
    machine has: those of the system's QEMU, of another version, must not be found."""
    modules = Path(emulator.environment.get("QEMU_MODULE_DIR", ""))
    system = f"/{LIBRARIES}/qemu"
    environment = shlex.join(f"{name}={value}" for name, value in emulator.environment.items())
    path.write_text(
        EMULATOR.format(
            hide=f"[ ! -d {system} ] || mount --bind {shlex.quote(str(modules))} {system}",
            qemu=f"env {environment} {shlex.join(emulator.prefix)}",
        )
    )
    path.chmod(0o755)


def vagrantfile(folder: Path, accel: str, *, own_emulator: bool) -> str:
    """The box's own, which the project's adds to."""
    if accel == "kvm":
        lines = ['libvirt.cpu_mode = "host-passthrough"']
    else:
        model, *features = lab_emulator.CPU.split(",+")
        lines = ['libvirt.cpu_mode = "custom"', f"libvirt.cpu_model = {json.dumps(model)}"]
        names = [LIBVIRT_NAMES.get(name, name) for name in features]
        lines += [f'libvirt.cpu_feature name: "{name}", policy: "require"' for name in names]
    if own_emulator:
        lines.append(f'libvirt.emulator_path = "{folder}/emulator"')
    return VAGRANTFILE.format(
        driver="kvm" if accel == "kvm" else "qemu",
        folder=folder,
        options=lab_emulator.KERNEL_OPTIONS,
        more="\n".join(f"    {line}" for line in lines),
    )


def vagrant(*words: str | Path) -> str:
    """What vagrant says to this."""
    return run_host(["vagrant", *words], timeout_s=600).decode()


def main() -> None:
    box = ensure_box()
    how = "with KVM" if box.accel == "kvm" else "emulated, without KVM"
    print(f"box {NAME} {box.version}: its machines run {how}")


if __name__ == "__main__":
    main()

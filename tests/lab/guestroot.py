"""What a guest's root file system holds beyond Debian's packages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .host import run_host

SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"

PACKAGE_NAMES = """
    linux-image-cloud-amd64 systemd systemd-sysv udev dbus iproute2 iputils-ping
    kmod procps e2fsprogs util-linux python3 python3-msgspec python3-dbus-next python3-pyroute2
    python3-click python3-rich python3-cryptography python3-systemd python3-pyudev mdadm dmsetup
    qemu-utils smartmontools nvme-cli open-iscsi polkitd fio strace openssl libkmod2 nftables
    netcat-openbsd less busybox-static lvm2 multipath-tools kpartx udisks2 fdisk
"""
PACKAGES = PACKAGE_NAMES.split()

MASKED_NAMES = """
    apt-daily-upgrade.timer apt-daily.timer dpkg-db-backup.timer e2scrub_all.timer
    e2scrub_reap.service fstrim.timer systemd-tmpfiles-clean.timer
    mdcheck_start.timer mdcheck_continue.timer mdmonitor-oneshot.timer
    getty@tty1.service getty-static.service serial-getty@ttyS0.service getty.target
    systemd-logind.service systemd-user-sessions.service systemd-ask-password-wall.path
    systemd-ask-password-console.path systemd-battery-check.service
    nvmefc-boot-connections.service nvmf-autoconnect.service open-iscsi.service
    smartmontools.service systemd-pstore.service uuidd.socket
    dev-hugepages.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount
    sys-fs-fuse-connections.mount sys-kernel-debug.mount sys-kernel-tracing.mount
    ldconfig.service systemd-binfmt.service systemd-firstboot.service
    systemd-hibernate-clear.service systemd-hwdb-update.service
    systemd-journal-catalog-update.service systemd-journal-flush.service
    systemd-machine-id-commit.service systemd-pcrmachine.service systemd-pcrphase-sysinit.service
    systemd-pcrphase.service systemd-random-seed.service systemd-sysusers.service
    systemd-tpm2-setup-early.service systemd-tpm2-setup.service systemd-update-done.service
    systemd-creds.socket systemd-pcrextend.socket systemd-pcrlock.socket systemd-sysext.socket
    systemd-initctl.socket systemd-bsod.service systemd-network-generator.service
    initrd-cleanup.service systemd-hostnamed.socket systemd-boot-random-seed.service
    modprobe@efi_pstore.service
    multipathd.service multipathd.socket multipathd-queueing.service
    lvm2-monitor.service lvm2-lvmpolld.socket lvm2-lvmpolld.service blk-availability.service
    lvm-devices-import.path lvm-devices-import.service dm-event.socket dm-event.service
    udisks2.service
"""
MASKED = MASKED_NAMES.split()
"""Units that cost time at boot and change nothing for what is tested."""

MASKED_RULES = [
    "55-scsi-sg3_id.rules", "56-lvm.rules", "58-scsi-sg3_symlink.rules", "60-multipath.rules",
    "68-del-part-nodes.rules", "69-lvm.rules", "80-udisks2.rules",
]  # fmt: skip
"""As are the units of LVM and multipathd above: tests that are about them unmask both."""

NET_SCRIPT = """\
#!/bin/sh
# Addresses of this host, written by the lab.
[ ! -f /etc/vastsky-lab/net.batch ] || exec ip -batch /etc/vastsky-lab/net.batch
"""

NET_UNIT = """\
[Unit]
Description=Lab: addresses of this host
DefaultDependencies=no
After=systemd-udev-trigger.service
Before=network.target network-online.target
Wants=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/lib/vastsky-lab/net

[Install]
WantedBy=multi-user.target network-online.target
"""

AGENT_UNIT = """\
[Unit]
Description=Lab: agent
DefaultDependencies=no
After=vastsky-lab-net.service systemd-tmpfiles-setup.service
IgnoreOnIsolate=yes

[Service]
ExecStart=/usr/bin/python3 -I -S /usr/local/lib/vastsky-lab/agent.py
Restart=always
RestartSec=100ms
OOMScoreAdjust=-1000
TasksMax=infinity

[Install]
WantedBy=sysinit.target
"""

JOURNALD = """\
[Journal]
Storage=volatile
RuntimeMaxUse=24M
RateLimitIntervalSec=0
Audit=no
"""

JOURNALD_UNIT = """\
# Every copy of the template starts journald anew; its sandbox is slow to build.
[Service]
SystemCallFilter=
SystemCallArchitectures=
RestrictAddressFamilies=
RestrictNamespaces=no
RestrictRealtime=no
RestrictSUIDSGID=no
LockPersonality=no
MemoryDenyWriteExecute=no
NoNewPrivileges=no
ProtectClock=no
IPAddressDeny=
DeviceAllow=
WatchdogSec=0
"""

FILES: dict[str, str] = {
    "/etc/hostname": "template\n",
    "/etc/hosts": "127.0.0.1 localhost\n",
    "/etc/fstab": "",
    "/etc/locale.conf": "LANG=C.UTF-8\n",
    "/etc/default/locale": "LANG=C.UTF-8\n",
    "/etc/sysctl.d/90-lab.conf": "vm.overcommit_memory=1\nkernel.printk=4 4 1 7\n",
    "/etc/systemd/journald.conf.d/lab.conf": JOURNALD,
    "/etc/systemd/system/systemd-journald.service.d/lab.conf": JOURNALD_UNIT,
    "/etc/systemd/system.conf.d/lab.conf": "[Manager]\nDefaultTimeoutStopSec=30s\n",
    "/etc/systemd/system/vastsky-lab-net.service": NET_UNIT,
    "/etc/systemd/system/vastsky-lab-agent.service": AGENT_UNIT,
    "/root/.profile": "export LANG=C.UTF-8\nPS1='\\u@\\h:\\w\\$ '\nalias ll='ls -la'\n",
}

DROPPED = [
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "usr/share/doc",
    "usr/share/locale",
    "var/lib/apt/lists",
    "var/cache/apt",
]


def write_file(root: Path, name: str, data: str | bytes, mode: int = 0o644) -> None:
    """Put a file into the root."""
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    path.chmod(mode)


def add_lab_files(root: Path) -> None:
    """Put the lab's agent, units and settings into an unpacked root."""
    for name, text in FILES.items():
        write_file(root, name, text)
    agent = Path(__file__).with_name("agent.py").read_bytes()
    write_file(root, "/usr/local/lib/vastsky-lab/agent.py", agent)
    write_file(root, "/usr/local/lib/vastsky-lab/net", NET_SCRIPT, 0o755)
    mask(root, MASKED)
    want(root, "multi-user.target", "vastsky-lab-net.service")
    want(root, "network-online.target", "vastsky-lab-net.service")
    want(root, "sysinit.target", "vastsky-lab-agent.service")


def mask(root: Path, units: Iterable[str]) -> None:
    """What is not to start; and it boots without a desktop."""
    system = root / "etc/systemd/system"
    for unit in units:
        link = system / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    rules = root / "etc/udev/rules.d"
    rules.mkdir(parents=True, exist_ok=True)
    for name in MASKED_RULES:
        (rules / name).symlink_to("/dev/null")
    default = system / "default.target"
    default.unlink(missing_ok=True)
    default.symlink_to("/usr/lib/systemd/system/multi-user.target")


def want(root: Path, target: str, unit: str) -> None:
    """A unit of our own that is to start."""
    wants = root / f"etc/systemd/system/{target}.wants"
    wants.mkdir(exist_ok=True)
    (wants / unit).symlink_to(f"/etc/systemd/system/{unit}")


def unpack_modules(root: Path, release: str) -> None:
    """Unpack the kernel's compressed modules: emulated CPUs are slow at it."""
    modules = root / "usr/lib/modules" / release
    find = f"find {modules} -name '*.ko.xz' -print0 | xargs -0 -r -n 50 -P 4 xz -d"
    run_host(["sh", "-c", find], timeout_s=300)
    run_host(["depmod", "-b", root / "usr", release], timeout_s=60)

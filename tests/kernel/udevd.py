"""Debian 13's own systemd-udevd, private to a test: it sees this kernel's devices, and what it
makes of them goes into a /run and a /dev of its own. No guest is needed, and no udev of this host
is asked or told anything.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.host import LabError
from tests.lab.image import ensure_root

OURS = Path(__file__).parents[2] / "rules.d"
USERS = OURS.parent / "packaging/sysusers.d/vastskyd.conf"
LIMIT_S = 60

# Of Debian's those that a disk comes by and that start nothing: md's would assemble what a test
# writes, for the whole host.
RULES = "50-udev-default 60-block 60-persistent-storage 99-systemd"

_BEGIN = """\
set -e
tree=$1 ours=$2 rules=$3 users=$4 device=$5
export SYSTEMD_IGNORE_CHROOT=1
mount --make-rprivate /
mount -t tmpfs run $tree/run
mount -t tmpfs dev $tree/dev
mount -t sysfs sys $tree/sys
mount -t proc proc $tree/proc
mknod -m 666 $tree/dev/null c 1 3
{ cat $tree/etc/group; awk '$1 == "u" { print $2 ":x:990:" }' $users; } >$tree/run/group
mount --bind $tree/run/group $tree/etc/group
mkdir -p $tree/run/chosen
for name in $rules; do cp $tree/usr/lib/udev/rules.d/$name.rules $tree/run/chosen; done
cp $ours/*.rules $tree/run/chosen
mount --bind $tree/run/chosen $tree/usr/lib/udev/rules.d
"""

_VERIFY = _BEGIN + "chroot $tree udevadm verify --no-style >&2\n"

_ASK = (
    _BEGIN
    + """\
numbers=$(cat /sys/class/block/$(basename $device)/dev)
mknod $tree$device b ${numbers%:*} ${numbers#*:}
chroot $tree /usr/lib/systemd/systemd-udevd --children-max=2 2>$tree/run/log &
for wait in $(seq 100); do [ ! -e $tree/run/udev/control ] || break; sleep 0.1; done
timeout 30 chroot $tree udevadm trigger --settle --action=add /sys/class/block/$(basename $device)
chroot $tree udevadm info --query=property --name=$device
cat $tree/run/log >&2
"""
)


@dataclass(frozen=True)
class Udevd:
    tree: Path

    def verify(self) -> None:
        """Raises AssertionError with what `udevadm verify` says against a rule."""
        self._run(_VERIFY)

    def properties(self, device: str, ours: Path = OURS) -> dict[str, str]:
        """What a new device is to udev, by the rules in `ours` and Debian's."""
        said = self._run(_ASK, device, ours)
        return dict(line.split("=", 1) for line in said.splitlines())

    def _run(self, script: str, device: str = "", ours: Path = OURS) -> str:
        done = subprocess.run(
            ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child",
             "sh", "-c", script, "udevd", self.tree, ours, RULES, USERS, device],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


def private_udevd() -> Udevd:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    try:
        return Udevd(ensure_root())
    except LabError as error:
        pytest.skip(f"needs Debian 13's files: {error}")

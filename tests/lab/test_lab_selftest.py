"""Does the lab do what its tests lean on?"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from .disks import MIB, Disk
from .fixtures import LabFactory
from .guest import CommandError, Guest
from .host import LabError, run_host
from .lab import Lab
from .lines import Agent
from .server import parse_hosts

pytestmark = pytest.mark.lab
HOSTS = {"head1": [], "store1": [Disk("d1"), Disk("d2", 64 * MIB)], "store2": [Disk("d1")]}


@pytest.fixture(scope="module")
def lab(module_lab_factory: LabFactory) -> Lab:
    """Three hosts that the tests of this module share."""
    return module_lab_factory(HOSTS)


def reaches(guest: Guest, name: str) -> bool:
    """Whether a host answers a ping."""
    return guest.run(f"ping -c 1 -W 3 {name}", check=False).exit == 0


def test_every_host_is_a_host_of_its_own(lab: Lab) -> None:
    """Copies of one template share no name, id or random bytes."""
    for command in (
        "hostname",
        "cat /etc/machine-id",
        "cat /proc/sys/kernel/random/boot_id",
        "head -c 16 /dev/urandom | od -An -tx1",
        "cat /etc/iscsi/initiatorname.iscsi",
        "cat /sys/class/net/eth*/address",
    ):
        results = lab.run(command)
        assert len({result.stdout for result in results.values()}) == len(HOSTS), command
    assert lab["head1"].run("hostname").stdout == "head1\n"
    clock = float(lab["head1"].run("date +%s.%N").stdout)
    assert abs(clock - time.time()) < 30


def test_a_host_is_a_stock_debian_with_nothing_failed(lab: Lab) -> None:
    """The reference: Debian 13, its kernel, its Python."""
    told = lab["store1"].run(". /etc/os-release; echo $VERSION_ID; uname -r; python3 -V").stdout
    assert told.startswith("13")
    assert "6.12" in told
    assert "Python 3.13" in told
    assert lab["store1"].run("systemctl --failed --plain --no-legend").stdout == ""


def test_both_networks_carry(lab: Lab) -> None:
    """Hosts reach each other by name on A and by NAME-b on B."""
    assert reaches(lab["head1"], "store1")
    assert reaches(lab["head1"], "store1-b")


def test_the_journal_is_readable_and_starts_with_this_host(lab: Lab) -> None:
    """`journalctl -b` finds what is logged, though the machine id is new."""
    lab["head1"].run("logger -t labtest hello-from-test")
    find = "for i in $(seq 50); do journalctl -b -t labtest | grep hello && exit; sleep 0.2; done"
    assert "hello-from-test" in lab["head1"].run(f"{find}; exit 1").stdout


def test_a_command_is_limited_and_blocks_no_other(lab: Lab) -> None:
    """A command that hangs ends at its limit; others run meanwhile."""
    slow = lab["head1"].begin("sleep 100", timeout_s=3)
    assert lab["head1"].run("echo quick").stdout == "quick\n"
    with pytest.raises(CommandError) as caught:
        slow.result(60)
    assert caught.value.result.timed_out
    with pytest.raises(CommandError):
        lab["head1"].run("exit 3")
    assert lab["head1"].run("exit 3", check=False).exit == 3


def test_a_background_process_holds_no_command_up(lab: Lab) -> None:
    """A process left behind with the command's output open does not delay the answer."""
    assert lab["head1"].run("sleep 60 & echo done", timeout_s=20).stdout == "done\n"


def test_files_go_in_and_out(lab: Lab) -> None:
    """A file larger than one message arrives whole, with its mode."""
    data = bytes(range(256)) * 3000
    lab["head1"].put("/root/blob", data, mode=0o600)
    assert lab["head1"].get("/root/blob") == data
    assert lab["head1"].run("stat -c %a /root/blob").stdout == "600\n"
    assert lab["head1"].run(["cat"], stdin=b"typed").stdout == "typed"


def test_a_cut_link_loses_its_carrier(lab: Lab) -> None:
    """The guest sees the carrier go; the other network carries on."""
    guest = lab["store1"]
    guest.cut_link("A")
    try:
        assert not reaches(lab["head1"], "store1")
        assert reaches(lab["head1"], "store1-b")
        assert guest.run("cat /sys/class/net/eth0/carrier").stdout == "0\n"
    finally:
        guest.restore_link("A")
    assert reaches(lab["head1"], "store1")


def test_a_silent_cut_keeps_the_carrier(lab: Lab) -> None:
    """Packets vanish and nobody is told."""
    guest = lab["store1"]
    guest.cut_silently("B")
    try:
        assert not reaches(lab["head1"], "store1-b")
        assert guest.run("cat /sys/class/net/eth1/carrier").stdout == "1\n"
    finally:
        guest.restore("B")
    assert reaches(lab["head1"], "store1-b")


def test_a_disk_is_pulled_and_plugged(lab: Lab) -> None:
    """Hot plug goes both ways and the data stays on the disk."""
    guest = lab["store1"]
    link = guest.disk_link("d2")
    assert guest.run(f"blockdev --getsize64 {link}").stdout == f"{64 * MIB}\n"
    guest.run(f"echo marked | dd of={link} oflag=direct bs=512 conv=sync status=none")
    guest.unplug_disk("d2")
    guest.run(f"udevadm settle; ! [ -e {link} ]")
    guest.plug_disk("d2")
    assert "marked" in guest.run(f"head -c 6 {link}").stdout
    guest.plug_disk(Disk("d9", 32 * MIB))
    assert guest.run(f"blockdev --getsize64 {guest.disk_link('d9')}").stdout == f"{32 * MIB}\n"
    guest.unplug_disk("d9")


def test_smart_tells_of_a_failing_disk(lab: Lab) -> None:
    """smartctl's verdict changes at run time."""
    guest = lab["store2"]
    command = f"smartctl -j -H {guest.disk_link('d1')}"
    assert json.loads(guest.run(command).stdout)["smart_status"]["passed"] is True
    guest.smart_fail("d1")
    told = guest.run(command, check=False)
    assert told.exit == 8
    assert json.loads(told.stdout)["smart_status"]["passed"] is False
    guest.smart_fail("d1", failing=False)
    assert guest.run(command).exit == 0


def test_a_sector_goes_bad_and_heals(lab: Lab) -> None:
    """One sector fails its reads; its neighbours and its writes do not."""
    guest = lab["store2"]
    link = guest.disk_link("d1")
    read = f"dd if={link} of=/dev/null bs=512 count=1 iflag=direct status=none skip="
    guest.fail_sectors("d1", [2048])
    assert guest.run(f"{read}2048", check=False).exit != 0
    assert guest.run(f"{read}2047").exit == 0
    write = f"dd if=/dev/zero of={link} bs=512 count=1 oflag=direct status=none seek="
    guest.run(f"{write}2048")
    guest.fail_sectors("d1", reads=True, writes=True)
    assert guest.run(f"{write}5", check=False).exit != 0
    guest.heal_sectors("d1")
    guest.run(f"{read}2048 && {write}5")


def test_a_paused_host_is_silent_and_goes_on(lab: Lab) -> None:
    """A hang: no answer, then all as before."""
    guest = lab["store2"]
    guest.pause()
    assert not reaches(lab["head1"], "store2")
    guest.resume()
    assert reaches(lab["head1"], "store2")


def test_power_cut_and_return(lab: Lab) -> None:
    """What was flushed is there after a power cut; boot and host are the same host's."""
    guest = lab["store2"]
    known = guest.run("cat /etc/machine-id; hostname").stdout
    boot = guest.run("cat /proc/sys/kernel/random/boot_id").stdout
    guest.run("echo kept > /root/kept; sync")
    link = guest.disk_link("d1")
    guest.run(f"echo on-disk | dd of={link} oflag=direct bs=512 conv=sync status=none")
    guest.kill()
    assert not reaches(lab["head1"], "store2")
    guest.power_on()
    assert guest.run("cat /root/kept").stdout == "kept\n"
    assert guest.run("cat /etc/machine-id; hostname").stdout == known
    assert guest.run("cat /proc/sys/kernel/random/boot_id").stdout != boot
    assert "on-disk" in guest.run(f"head -c 7 {link}").stdout
    assert reaches(lab["head1"], "store2")
    assert reaches(guest, "head1-b")


def test_a_host_whose_systemd_freezes_at_boot_is_booted_once_more(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is the emulator's doing, and no test's. Twice in a row it is somebody's."""
    guest = lab["store2"]
    guest.kill()
    monkeypatch.setattr("tests.lab.guest.FROZEN", "NOTICE: frozen")
    connect, tries = guest.connect_agent, []

    def freezes(timeout_s: float) -> Agent:
        tries.append(timeout_s)
        if len(tries) in frozen:
            with (guest.folder / "console.log").open("a") as console:
                console.write("NOTICE: frozen\n")
        return connect(timeout_s)

    monkeypatch.setattr(guest, "connect_agent", freezes)
    frozen = {1}
    guest.power_on()
    assert len(tries) == 2
    assert guest.run("true").exit == 0
    guest.kill()
    frozen = {3, 4}
    with pytest.raises(LabError, match="frozen"):
        guest.power_on()
    guest.kill()
    guest.power_on()


def test_reboot_in_good_order(lab: Lab) -> None:
    """A restored host reboots into a real boot, with its disks."""
    guest = lab["store1"]
    boot = guest.run("cat /proc/sys/kernel/random/boot_id").stdout
    guest.reboot()
    assert guest.run("cat /proc/sys/kernel/random/boot_id").stdout != boot
    assert guest.run(f"blockdev --getsize64 {guest.disk_link('d1')}").stdout == f"{256 * MIB}\n"
    assert reaches(lab["head1"], "store1-b")


def test_power_off_and_two_labs_at_a_time(lab_factory: LabFactory) -> None:
    """Labs do not see one another; a host that is off says so."""
    one, two = lab_factory(["solo"]), lab_factory(["solo"])
    assert one["solo"].address() == two["solo"].address()
    one["solo"].shutdown()
    assert one["solo"].state() == "off"
    with pytest.raises(LabError, match="off"):
        one["solo"].run("true")
    assert two["solo"].run("hostname").stdout == "solo\n"


def make_package(folder: Path) -> Path:
    """A Debian package whose service notes the name of the host it starts on."""
    root = folder / "root"
    files = {
        "DEBIAN/control": "Package: labtest\nVersion: 1\nArchitecture: all\n"
        "Maintainer: Lab <lab@example.org>\nDescription: test of the lab\n",
        "DEBIAN/postinst": "#!/bin/sh\nset -e\nsystemctl enable labtest\n"
        "deb-systemd-invoke start labtest || true\n",
        "usr/lib/systemd/system/labtest.service": "[Service]\nType=oneshot\nRemainAfterExit=yes\n"
        "ExecStart=/bin/sh -c 'hostname >>/var/lib/labtest'\n[Install]\n"
        "WantedBy=multi-user.target\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    deb = folder / "labtest.deb"
    run_host(["dpkg-deb", "--root-owner-group", "--build", root, deb])
    return deb


def test_packages_run_as_each_host(lab_factory: LabFactory, tmp_path: Path) -> None:
    """A package is installed once; its service starts in each copy and never before."""
    lab = lab_factory({"one": [], "two": []}, debs=[make_package(tmp_path)])
    for guest in lab.guests.values():
        assert guest.run("systemctl is-active labtest").stdout == "active\n"
        assert guest.run("cat /var/lib/labtest").stdout == f"{guest.name}\n"
        assert "ii  labtest" in guest.run("dpkg -l labtest").stdout


def test_nothing_is_left(lab_factory: LabFactory) -> None:
    """After down: no process, no namespace, no file."""
    lab = lab_factory({"gone": [Disk("d1")]})
    process = lab["gone"].process
    assert process is not None
    lab.down()
    assert process.poll() is not None
    assert not lab.folder.exists()
    assert not Path("/run/netns", lab.segments.name).exists()


def test_hosts_as_written_by_hand() -> None:
    """The short form of the command line."""
    hosts = parse_hosts("mgr1,store1:2,store2:1x512")
    assert hosts["mgr1"] == []
    assert [disk.name for disk in hosts["store1"]] == ["d1", "d2"]
    assert hosts["store2"][0].size == 512 * MIB
    with pytest.raises(LabError):
        parse_hosts("store1:many")

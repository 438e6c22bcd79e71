"""What is read from sysfs, /proc and tools."""

import pytest

from vastskyd.core.errors import DeviceError
from vastskyd.kernel.disk_links import best_first
from vastskyd.kernel.disks import describe_signatures
from vastskyd.kernel.md import mdadm_uuid
from vastskyd.kernel.md_sysfs import member_state, sync_progress
from vastskyd.kernel.mounts import mount_points
from vastskyd.kernel.nbd_tls import peer_names
from vastskyd.ports import MemberState


def test_md_member_states() -> None:
    assert member_state("in_sync", "0") is MemberState.IN_SYNC
    assert member_state("in_sync,write_mostly", "1") is MemberState.IN_SYNC
    assert member_state("spare", "1") is MemberState.RECOVERING
    assert member_state("spare", "none") is MemberState.SPARE
    assert member_state("faulty", "none") is MemberState.FAULTY
    assert member_state("faulty,timeout_test", "2") is MemberState.FAULTY


def test_md_progress() -> None:
    assert sync_progress("none") == (0, 0)
    assert sync_progress("delayed") == (0, 0)
    assert sync_progress("128 / 131072") == (65536, 67108864)


def test_mdadm_writes_uuids_in_groups() -> None:
    assert mdadm_uuid("0123456789abcdef" * 2) == "01234567:89abcdef:01234567:89abcdef"


def test_mounts() -> None:
    mountinfo = (
        "22 28 0:20 / /sys rw,nosuid - sysfs sysfs rw\n"
        "36 35 253:7 / /srv/my\\040data rw,noatime shared:1 - ext4 /dev/dm-7 rw\n"
        "37 35 253:7 /sub /mnt rw shared:1 - ext4 /dev/dm-7 rw\n"
        "38 35 253:70 / /other rw - ext4 /dev/dm-70 rw\n"
    )
    assert mount_points(mountinfo, "253:7") == ("/srv/my data", "/mnt")


def test_signatures() -> None:
    assert describe_signatures("") == ""
    assert describe_signatures('{"signatures": []}') == ""
    text = """{"signatures": [
        {"device": "vdb", "offset": "0x200", "type": "gpt", "uuid": null, "label": null},
        {"device": "vdb", "offset": "0x1fe", "type": "PMBR"},
        {"device": "vdb", "offset": "0x438", "type": "ext4"}]}"""
    assert describe_signatures(text) == "GPT partition table, ext4 filesystem"
    with pytest.raises(DeviceError):
        describe_signatures("wipefs: error")


def test_the_telling_link_is_preferred() -> None:
    links = [
        "/dev/disk/by-id/wwn-0x5",
        "/dev/disk/by-id/nvme-eui.00",
        "/dev/disk/by-id/nvme-QEMU_1",
    ]
    assert best_first(links)[0] == "/dev/disk/by-id/nvme-QEMU_1"


def test_names_of_a_certificate() -> None:
    certificate = {
        "subject": ((("organizationName", "vastsky"),), (("commonName", "store1"),)),
        "subjectAltName": (("DNS", "store1.lan"), ("IP Address", "10.0.0.1")),
    }
    assert tuple(peer_names(certificate)) == ("store1", "store1.lan")
    assert tuple(peer_names({})) == ()

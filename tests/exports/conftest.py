"""What needs a real systemd is tried in a guest, by tests/contract/test_on_real_kernel.py."""

from tests.contract.exports_world import IN_LAB

collect_ignore = [] if IN_LAB else ["test_systemd_lab.py"]

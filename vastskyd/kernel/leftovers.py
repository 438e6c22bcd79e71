"""What an earlier vastskyd has left running in this unit's control group.

systemd kills vastskyd alone (KillMode=process) and does not wait for what it had begun: that may
sleep in the kernel for as long as a leg's I/O is held, and vastskyd is needed to end that. So the
next vastskyd ends it: a mdadm of the old one's, say, that would go on beside its own.
"""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from vastskyd.kernel import sysfs

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def end_leftovers(
    environ: Mapping[str, str] = os.environ, proc: Path = _PROC, cgroups: Path = _CGROUPS
) -> tuple[str, ...]:
    """Kills all others in this process's control group: "mdadm (pid 12)" of each, for people.
    Nothing, unless systemd started this process as a service's own."""
    if environ.get("SYSTEMD_EXEC_PID") != str(os.getpid()):
        return ()  # in a shell the group is that of the whole session
    group = (sysfs.attribute(proc / "self/cgroup") or "").rpartition("::")[2]
    if not group.endswith(".service"):
        return ()
    members = sysfs.attribute(cgroups / group.lstrip("/") / "cgroup.procs") or ""
    ended = []
    for pid in map(int, members.split()):
        if pid == os.getpid():
            continue
        name = sysfs.attribute(proc / str(pid) / "comm") or "a program"
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        ended.append(f"{name} (pid {pid})")
    return tuple(ended)

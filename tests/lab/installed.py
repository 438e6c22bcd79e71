"""A template with packages installed: what dpkg does once need not be done by every copy.

The packages are installed by dpkg in a running copy of the plain template, as a user would, but
their services are not started: that happens in each copy, once it has a name and ids of its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .emulator import Machine
from .guest import Guest
from .host import LabError, build_once, digest, run_host
from .network import Segments
from .template import Template, copy_of, make_overlay, restore, save

POLICY = '#!/bin/sh\ncase " $* " in *" start "* | *" restart "*) exit 101 ;; esac\n'
POLICY_FILE = "/usr/sbin/policy-rc.d"
KEPT = 4
"""How many installed templates the cache keeps: every new build of a package makes one."""


def ensure_installed(base: Template, debs: Sequence[Path]) -> Template:
    """The template with these packages; made when it is not in the cache."""
    if not debs:
        return base
    key = digest(base.key, POLICY, Path(__file__), *debs)
    names = " ".join(deb.name for deb in debs)
    final = build_once(
        "installed",
        key,
        f"installing {names} in a copy of the template (about 20 s)",
        lambda work: build(work, work.with_name(f"installed-{key}"), base, debs),
        newest=KEPT,
    )
    return replace(
        base,
        key=key,
        memory=final / "memory",
        state=final / "state",
        overlay=final / "overlay.qcow2",
        packages=tuple(deb.name for deb in debs),
    )


def build(work: Path, final: Path, base: Template, debs: Sequence[Path]) -> None:
    """Restore the plain template, install, and save it again."""
    run_host(["cp", "--sparse=always", base.memory, work / "memory"])
    disk = copy_of(base, work)
    disk = disk.rename(work / "disk.qcow2")
    segments = Segments(f"vastsky-lab-installed-{final.name.rpartition('-')[2]}")
    segments.down()
    segments.up(1)
    machine = Machine(
        folder=work,
        image=base.image,
        root_disk=disk,
        memory_mib=base.memory_mib,
        memory_file=work / "memory",
        share_memory=True,
        nics=segments.nics(0),
        accel=base.accel,
    )
    guest = Guest("template", 0, machine, base.emulator, segments)
    try:
        monitor = guest.start(incoming=True)
        restore(monitor, base.state)
        monitor.execute("cont")
        guest.connect_agent()
        guest.set_clock(time.time())
        install(guest, debs)
        save(monitor, work / "state")
    except LabError as error:
        raise LabError(f"{error}\n{guest.last_words()}") from error
    finally:
        guest.kill()
        segments.down()
    make_overlay(base.emulator, final / "disk.qcow2", "qcow2", work / "overlay.qcow2")


def install(guest: Guest, debs: Sequence[Path]) -> None:
    """Install packages; services that they start stay stopped."""
    guest.put(POLICY_FILE, POLICY.encode(), mode=0o755)
    paths = [f"/root/{deb.name}" for deb in debs]
    for path, deb in zip(paths, debs, strict=True):
        guest.put(path, deb.read_bytes())
    words = " ".join(paths)
    guest.run(f"DEBIAN_FRONTEND=noninteractive dpkg -i {words}", timeout_s=600)
    guest.run(f"rm {POLICY_FILE} {words} && systemctl daemon-reload && udevadm settle && sync")

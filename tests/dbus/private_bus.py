"""A dbus-daemon of the test's own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    {rights}
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  {more}
</busconfig>
"""


@contextmanager
def private_bus(directory: Path, policy: Path | None = None) -> Iterator[str]:
    """Its address. With `policy`, only what that file allows on top of a system bus's defaults;
    else everybody may do everything."""
    daemon = shutil.which("dbus-daemon")
    if daemon is None:
        pytest.fail("dbus-daemon is missing: install the package dbus (dbus-daemon)")
    config = directory / "bus.conf"
    config.write_text(
        _CONFIG.format(
            socket=directory / "bus",
            rights="" if policy else '<allow own="*"/><allow send_destination="*"/>',
            more=f"<include>{policy}</include>" if policy else "",
        )
    )
    with subprocess.Popen(
        [daemon, f"--config-file={config}", "--nofork", "--nopidfile", "--print-address=1"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            assert address, "dbus-daemon did not start"
            os.chmod(directory / "bus", 0o666)
            yield address.split(",")[0]
        finally:
            process.terminate()

"""The world of a real kernel: runs inside a guest of the lab, as root, on its spare NVMe disks."""

import asyncio
import contextlib
import glob
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.contract.world import Served
from vastskyd.core.documents import Endpoint
from vastskyd.core.errors import VastskyError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Encryption
from vastskyd.kernel.apart import start
from vastskyd.kernel.calls import Calls, CallsApart
from vastskyd.kernel.disks import LinuxDisks
from vastskyd.kernel.host import HostKernel
from vastskyd.kernel.smart import LinuxSmart

MIB = 1024 * 1024
TLS = Path("/run/contract-tls")
SERVER = NodeId("store1")
PORT = 10900
ROUNDS = 20


def sh(command: str) -> str:
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, timeout=90, check=False
    )
    if done.returncode:
        raise AssertionError(f"{command}: {done.stderr or done.stdout}")
    return done.stdout


async def aside(command: str) -> str:
    return await asyncio.to_thread(sh, command)


class Process:
    def __init__(self, pid: int) -> None:
        self._stat = Path(f"/proc/{pid}/stat")

    def lives(self) -> bool:
        try:
            return self._stat.read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False


class LabWorld:
    def __init__(self, calls: Calls) -> None:
        self.kernel = HostKernel(calls, TLS / "client")
        self.disks = LinuxDisks(calls)
        self.smart = LinuxSmart()
        self._spare = sorted(glob.glob("/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_*-d?"))
        # Not from the start: a disk must not look like what a leg on it holds.
        self._used_mib = [8] * len(self._spare)
        self._servers: dict[int, subprocess.Popen[bytes]] = {}
        self._tables: dict[str, str] = {}
        self._ports: dict[str, int] = {}
        self._names = 0

    def _cut(self, size_bytes: int) -> tuple[str, int]:
        """A range of the emptiest spare disk, zeroed: (disk, offset in MiB)."""
        at = self._used_mib.index(min(self._used_mib))
        offset = self._used_mib[at]
        self._used_mib[at] += -(-size_bytes // MIB)
        disk = os.path.realpath(self._spare[at])
        sh(f"blkdiscard --force -z -o {offset * MIB} -l {size_bytes} {disk}")
        return disk, offset

    async def make_legs(self, count: int, size_bytes: int) -> tuple[str, ...]:
        return tuple([await asyncio.to_thread(self._leg, size_bytes) for _ in range(count)])

    def _leg(self, size_bytes: int) -> str:
        disk, offset = self._cut(size_bytes)
        self._names += 1
        name = f"contract-{self._names}"
        table = f"0 {size_bytes // 512} linear {disk} {offset * 2048}"
        sh(f"dmsetup create {name} --table '{table}'")
        device = os.path.realpath(f"/dev/mapper/{name}")
        self._tables[device] = table
        return device

    async def fail_path(self, device: str) -> None:
        await self._load(device, f"0 {self._tables[device].split()[1]} error")

    async def mend_path(self, device: str) -> None:
        await self._load(device, self._tables[device])

    async def _load(self, device: str, table: str) -> None:
        await aside(
            f"dmsetup suspend --noflush --nolockfs {device} && "
            f"dmsetup load {device} --table '{table}' && dmsetup resume {device}"
        )

    async def serve(self, device: str, encryption: Encryption = Encryption.NONE) -> Served:
        port = self._ports.setdefault(device, PORT + len(self._ports))
        await asyncio.to_thread(self._serve, device, port, encryption)
        size = int(self._tables[device].split()[1]) * 512
        endpoint = Endpoint(network=0, address="127.0.0.1", port=port)
        return Served(endpoint, "the-export", encryption, SERVER, "127.0.0.1", size)

    def _serve(self, device: str, port: int, encryption: Encryption) -> None:
        tls = []
        options = ""
        if encryption is Encryption.TLS:
            make_certificates()
            tls = [
                "--object",
                f"tls-creds-x509,id=tls,endpoint=server,verify-peer=yes,dir={TLS}/server,"
                "priority=NORMAL:%NO_TICKETS",
                "--object",
                '{"qom-type":"authz-list","id":"az","policy":"deny",'
                '"rules":[{"match":"CN=head1","policy":"allow","format":"exact"}]}',
            ]
            options = ",tls-creds=tls,tls-authz=az"
        self._servers[port] = subprocess.Popen(
            [
                "qemu-storage-daemon",
                *tls,
                "--blockdev",
                f"driver=host_device,node-name=n,filename={device},cache.direct=on,aio=native",
                "--nbd-server",
                f"addr.type=inet,addr.host=127.0.0.1,addr.port={port},max-connections=8{options}",
                "--export",
                "type=nbd,id=e,node-name=n,name=the-export,writable=on",
                "--pidfile",
                f"/run/contract-{port}.pid",
            ],
            stdin=subprocess.DEVNULL,
        )
        sh(f"for i in $(seq 400); do ss -ltn | grep -q :{port} && exit 0; sleep 0.1; done; exit 1")

    async def kill_server(self, served: Served) -> None:
        await asyncio.to_thread(self._kill, served.endpoint.port)

    def _kill(self, port: int) -> None:
        server = self._servers.pop(port)
        server.send_signal(signal.SIGKILL)
        server.wait(10)

    async def make_smart_disk(self) -> str:
        return self._spare[0]

    async def no_disk(self, leg: str) -> str:
        return leg  # device-mapper's

    async def make_disk(self, size_bytes: int) -> str:
        """A loop device over a part of a spare disk: no link of udev's, so its plain name."""
        disk, offset = await asyncio.to_thread(self._cut, size_bytes)
        device = await aside(
            f"losetup --find --show --offset {offset * MIB} --sizelimit {size_bytes} {disk}"
        )
        return device.strip()

    async def put_filesystem(self, path: str) -> None:
        await aside(f"mke2fs -q -F -t ext4 -O ^has_journal {path}")

    async def write(self, device: str, offset_bytes: int, content: bytes) -> None:
        await asyncio.to_thread(_write, device, offset_bytes, content)

    async def read(self, device: str, offset_bytes: int, length_bytes: int) -> bytes:
        return await asyncio.to_thread(_read, device, offset_bytes, length_bytes)

    async def flush(self, device: str) -> None:
        await asyncio.to_thread(_flush, device)

    async def flushes(self, device: str) -> int:
        return _flushes(os.path.basename(self._tables[device].split()[3]))

    @asynccontextmanager
    async def opened(self, device: str, *, to_write: bool = False) -> AsyncIterator["Process"]:
        mode = "os.O_RDWR" if to_write else "os.O_RDONLY"
        code = f"import os; os.open({device!r}, {mode}); print(1, flush=True); input()"
        pipe = asyncio.subprocess.PIPE
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdin=pipe, stdout=pipe
        )
        assert program.stdout is not None
        await program.stdout.readline()
        try:
            yield Process(program.pid)
        finally:
            with contextlib.suppress(ProcessLookupError):
                program.kill()
            await program.wait()

    async def leave_frozen(self, array: str) -> None:
        name = os.path.basename(array)
        await aside(f"echo frozen > /sys/block/{name}/md/sync_action")

    async def leave_unmade(self) -> str:
        await aside(
            "echo md500 > /sys/module/md_mod/parameters/new_array"
            " && echo 2 > /sys/block/md500/md/raid_disks"
        )
        return "/dev/md500"

    async def is_array(self, device: str) -> bool:
        state = f"/sys/block/{os.path.basename(device)}/md/array_state"
        return (await aside(f"cat {state} || echo clear")).strip() != "clear"

    async def mount(self, device: str) -> None:
        place = f"/run/contract-mount-{os.path.basename(device)}"
        await aside(f"mke2fs -q -F -t ext4 {device} && mkdir -p {place} && mount {device} {place}")

    async def clean(self) -> None:
        """Takes everything down, whatever state a test left it in."""
        kernel = self.kernel
        for device in await kernel.dm.devices():
            if "VASTSKY-LEG" in device.uuid:
                with contextlib.suppress(AssertionError):
                    await aside(f"dmsetup message {device.name} 0 fail_if_no_path")
        await self._take_down()
        for nbd in await kernel.nbd.devices():
            await kernel.nbd.disconnect(nbd.device)
        for port in list(self._servers):
            self._kill(port)
        await aside("losetup --detach-all")
        for backing in self._tables:
            await aside(f"dmsetup remove --retry {backing}")
        kernel.close()

    async def _take_down(self) -> None:
        """From the top down. Where the machine is busy, udev has a device open for a while."""
        kernel = self.kernel
        why: VastskyError | None = None
        for number in range(ROUNDS):
            try:
                for device in await kernel.dm.devices():
                    if device.open_count == 0:
                        await kernel.dm.remove(device.name)
                for array in await kernel.md.arrays():
                    await kernel.md.stop(array.device)
            except VastskyError as error:
                why = error
            if not await kernel.dm.devices() and not await kernel.md.arrays():
                return
            await asyncio.sleep(0.05 * number)
        raise AssertionError(f"left: {await kernel.dm.devices()} {await kernel.md.arrays()}: {why}")


# The devices below the legs are the tests' own, and no business of udev's either.
RULES = Path("/run/udev/rules.d/57-contract.rules")
RULE = (
    'KERNEL=="dm-*", ATTR{dm/name}=="contract-*", ENV{SYSTEMD_READY}="0", '
    'ENV{DM_UDEV_DISABLE_DISK_RULES_FLAG}="1", ENV{DM_UDEV_DISABLE_OTHER_RULES_FLAG}="1"\n'
)


def install_rule() -> None:
    if not RULES.exists():
        RULES.parent.mkdir(exist_ok=True)
        RULES.write_text(RULE)
        sh("udevadm control --reload")


@asynccontextmanager
async def make_world() -> AsyncIterator[LabWorld]:
    install_rule()
    async with CallsApart(start()) as calls:
        world = LabWorld(calls)
        try:
            yield world
        finally:
            await world.clean()


def make_certificates() -> None:
    """A CA, the server's certificate for store1, and the head's for head1."""
    if TLS.exists():
        return
    server, client = TLS / "server", TLS / "client"
    new = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30"
    sign = "openssl x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -days 30"
    sh(f"""
    set -e; mkdir -p {server} {client}; cd {TLS}
    {new} -x509 -subj /CN=ca -keyout ca.key -out ca.pem \\
        -addext keyUsage=critical,keyCertSign,cRLSign
    {new} -subj /CN={SERVER} -keyout server/server-key.pem -out s.csr
    {new} -subj /CN=head1 -keyout client/client-key.pem -out c.csr
    printf 'keyUsage=critical,digitalSignature\\nextendedKeyUsage=serverAuth,clientAuth\\n' > ext
    {sign} -extfile ext -in s.csr -out server/server-cert.pem
    {sign} -extfile ext -in c.csr -out client/client-cert.pem
    # Else QEMU makes parameters of its own at every start: 9 s in a guest, 0.2 s with these.
    openssl genpkey -genparam -algorithm DH -pkeyopt group:ffdhe2048 -out server/dh-params.pem
    cp ca.pem server/ca-cert.pem; cp ca.pem client/ca-cert.pem
    """)


def _write(device: str, offset_bytes: int, content: bytes) -> None:
    fd = os.open(device, os.O_WRONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, len(content)) as buffer:
            buffer[:] = content
            os.pwrite(fd, buffer, offset_bytes)
    finally:
        os.close(fd)


def _flushes(disk: str) -> int:
    """Documentation/block/stat.rst; 0 for ever if the disk has no write cache."""
    return int(Path(f"/sys/block/{disk}/stat").read_text().split()[15])


def _flush(device: str) -> None:
    fd = os.open(device, os.O_WRONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read(device: str, offset_bytes: int, length_bytes: int) -> bytes:
    fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, length_bytes) as buffer:
            os.preadv(fd, [buffer], offset_bytes)
            return buffer[:]
    finally:
        os.close(fd)

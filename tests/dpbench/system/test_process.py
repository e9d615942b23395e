"""What `configure` sets for the process."""

import os
import platform
import subprocess
import sys

import pytest

MEASURE = """
import resource, sys, torch
from dpbench.system.process import configure
torch.set_num_threads(1)
if sys.argv[1] == "configured":
    configure()

def filled(times):
    for _ in range(times):
        held = [torch.full((1_000_000,), 1.0) for _ in range(4)]  # 16 MB, given back at once

filled(20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
filled(10)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_of_large_tensors_is_kept_for_the_next_ones():
    # glibc moves this threshold by itself where nobody sets it, so that what it does is a matter of luck
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}

    def faults(how):
        line = [sys.executable, "-c", MEASURE, how]
        run = subprocess.run(line, capture_output=True, text=True, check=True, env=environment)
        return int(run.stdout)

    assert faults("configured") < 1000 < faults("as it is")

"""Work that hangs or grows ends with its process, and says why."""

import subprocess
import sys
import time

import pytest

from svad_ray.ledger.limits import bounded

PROGRAM = """
import sys, time
from pathlib import Path
from svad_ray.ledger.limits import bounded
with bounded(timeout_s=float(sys.argv[2]), memory_gib=float(sys.argv[3]), say=Path(sys.argv[1]).write_text):
    held = []
    while True:
        if sys.argv[4] == "grow":
            held.append(bytearray(b"x") * (1 << 24))
        time.sleep(0.01)
"""


def died(path, *arguments):
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(path), *map(str, arguments)], timeout=60)
    assert done.returncode == -9
    return path.read_text()


def test_a_hang_and_a_leak_end_the_process(tmp_path):
    assert died(tmp_path / "a", 0.5, 0, "hang") == "no end after 0.5 s"
    assert died(tmp_path / "b", 30, 0.3, "grow").startswith("out of memory: 0.")


def test_work_that_ends_in_time_is_left_alone():
    said: list[str] = []
    with bounded(timeout_s=0.4, say=said.append, end=lambda: said.append("ended")):
        pass
    time.sleep(0.8)
    assert said == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_end_comes_even_when_the_reason_cannot_be_recorded():
    ended = []

    def broken(reason):
        raise OSError("disk full")

    with bounded(timeout_s=0.1, say=broken, end=lambda: ended.append(1)):
        time.sleep(1.0)
    assert ended == [1]

"""The short form of ``chaos.py``; the long one (1,000 subjects) is a command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_random_kills_lose_nothing():
    command = [sys.executable, str(Path(__file__).with_name("chaos.py")), "--subjects", "50", "--kills", "8", "--limit-s", "800", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, timeout=880)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "0 lost, 0 committed twice, 0 neighbours lost" in done.stdout
    assert "killed: nothing" not in done.stdout

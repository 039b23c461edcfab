"""Modules that several test folders share."""

import sys
from pathlib import Path

for folder in (Path(__file__).parent, Path(__file__).parent / "cluster"):  # the tiny pipeline, and its scripted form
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

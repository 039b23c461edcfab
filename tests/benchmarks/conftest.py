"""The benchmarks are no package of the product; the tests of their arithmetic find them in the repository, and they each other beside themselves."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
for folder in (str(ROOT / "benchmarks"), str(ROOT)):
    if folder not in sys.path:
        sys.path.insert(0, folder)

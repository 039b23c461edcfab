import sys
from pathlib import Path

if str(Path(__file__).parent) not in sys.path:  # what these modules share
    sys.path.insert(0, str(Path(__file__).parent))

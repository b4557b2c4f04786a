"""The tests import what lies beside them and what `scripts/local-aws` uses."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "local")]

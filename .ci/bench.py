"""The benchmark behind ``make bench``; ``--quick`` shows in a minute that it runs."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.bench.run import main

if __name__ == "__main__":
    sys.exit(main())

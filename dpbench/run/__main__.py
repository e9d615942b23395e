"""python -m dpbench.run."""

from __future__ import annotations

import sys

from dpbench.run import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m translate` and the command `translate`."""

import os
import sys

# Threads of a product that wait for each other must sleep, not spin: beside any other process a spinning thread burns
# the core that the others wait for, and training falls to a tenth. Read once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from translate.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

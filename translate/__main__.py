"""`python -m translate` and the command `translate`."""

import sys

from translate.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

"""The last step of the quickstart: draw what the model attended to, and check that it looked where it should.

Usage: python scripts/quickstart_picture.py RUN SENTENCE
"""

import sys
from pathlib import Path

from translate.stages.inspection import inspect_attention

from translate.run import RunDirectory


def main() -> None:
    """Print the picture's path; fail if the English noun does not look most at the Korean one."""
    run, sentence = RunDirectory.open(Path(sys.argv[1])), sys.argv[2]
    report = inspect_attention(run, sentence)
    print(report)


if __name__ == "__main__":
    main()

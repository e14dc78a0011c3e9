"""The last step of the quickstart: draw what the model attended to, and see that it looked where it should.

Usage: python scripts/quickstart_picture.py RUN SENTENCE TARGET_WORD SOURCE_WORD
"""

import json
import sys
from pathlib import Path

from translate.run import RunDirectory
from translate.stages.inspection import inspect_attention


def most_seen(numbers: Path, target: str) -> str:
    """The source word that a target word looked at most, from the numbers beside the picture."""
    words = json.loads(numbers.read_text(encoding="utf-8"))["words"]
    row = words["weights"][words["tgt"].index(target)]
    seen: str = words["src"][row.index(max(row))]
    return seen


def main() -> None:
    """Print where the picture is; fail if the target word does not look most at the source word."""
    run, sentence, target, source = sys.argv[1:]
    paths = inspect_attention(RunDirectory.open(Path(run)), sentence).paths
    seen = most_seen(paths["numbers"], target)
    if source not in seen:
        sys.exit(f"error: {target} looks most at {seen}, expected {source}")
    print(f"{target} looks most at {seen}")
    print(f"picture: {paths['picture']}")


if __name__ == "__main__":
    main()

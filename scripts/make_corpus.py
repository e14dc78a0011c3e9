"""Write the Korean-English quickstart corpus; the same files every time.

python scripts/make_corpus.py [--output data/quickstart]
"""

import argparse
from pathlib import Path

from corpus.split import files

DEFAULT = Path(__file__).resolve().parent.parent / "data" / "quickstart"


def main() -> None:
    """Write every file of the corpus into one folder."""
    parser = argparse.ArgumentParser(description="Write the Korean-English quickstart corpus.")
    parser.add_argument("--output", type=Path, default=DEFAULT, help="folder to write into")
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    for name, content in files().items():
        (output / name).write_bytes(content)


if __name__ == "__main__":
    main()

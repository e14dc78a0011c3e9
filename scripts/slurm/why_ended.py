"""Why a training with several processes ended: one exit code from the records of all.

    python scripts/slurm/why_ended.py RUN

Prints what each process left in RUN/ranks and exits with 0 if all are done; with the code of the first that failed for
a reason of its own, such as 65 for bad data; else with 143 if they were asked to stop; else with 75: a process was
lost, and another try may go better.
"""

import json
import sys
from pathlib import Path

DONE, TRY_AGAIN, KILLED, STOPPED = 0, 75, 137, (143, 130)


def verdict(codes: list[int | None]) -> int:
    """One code for all; None is a process that never told its end."""
    own = [code for code in codes if code not in (None, DONE, TRY_AGAIN, KILLED, *STOPPED)]
    if own:
        return int(own[0] or 0)
    if codes and all(code == DONE for code in codes):
        return DONE
    return next((code for code in STOPPED if code in codes and KILLED not in codes), TRY_AGAIN)


def main() -> int:
    """Print the records and return the verdict on them."""
    if len(sys.argv) != 2:
        print("usage: python scripts/slurm/why_ended.py RUN", file=sys.stderr)
        return 64
    records = [json.loads(path.read_text(encoding="utf-8")) for path in Path(sys.argv[1], "ranks").glob("*.json")]
    for record in sorted(records, key=lambda record: record["rank"]):
        print(f"rank {record['rank']} on {record['host']}: {record['code']} {record['cause']}")
    return verdict([record["code"] for record in records])


if __name__ == "__main__":
    sys.exit(main())

"""Why a training with several processes ended: one exit code from the records of all.

    python scripts/slurm/why_ended.py RUN [SECONDS]

Prints what each process left in RUN/ranks, if it began at SECONDS since 1970 or later, and exits with 0 if all are
done; with the code of the first that failed for a reason of its own, such as 65 for bad data; else with 143 if they
were asked to stop; else with 75: a process was lost, or none came as far as a record, and another try may go better.
"""

import json
import sys
from pathlib import Path

DONE, TRY_AGAIN, KILLED, STOPPED = 0, 75, 137, (143, 130)
SKEW = 5.0
"""Seconds by which the clocks of two machines may differ."""


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
    if len(sys.argv) not in (2, 3):
        print("usage: python scripts/slurm/why_ended.py RUN [SECONDS]", file=sys.stderr)
        return 64
    since = float(sys.argv[2]) - SKEW if len(sys.argv) == 3 else 0.0
    records = [json.loads(path.read_text(encoding="utf-8")) for path in Path(sys.argv[1], "ranks").glob("*.json")]
    records = sorted((record for record in records if record["started"] >= since), key=lambda record: record["rank"])
    for record in records:
        end = "it ended without a word" if record["code"] is None else f"{record['code']} {record['cause']}"
        print(f"rank {record['rank']} on {record['host']}: {end}")
    if not records:
        print(f"no process came as far as a record in {sys.argv[1]}/ranks; what was printed before this says why")
    return verdict([record["code"] for record in records])


if __name__ == "__main__":
    sys.exit(main())

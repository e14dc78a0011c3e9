"""Does the output layer lose anything in bf16? The Multi30k Transformer with it in bf16 and in fp32, three seeds each.

    python scripts/experiments/head.py

Makes the block `head` of docs/performance.md. Six trainings of 1,300 updates, each 20 to 45 minutes on one core; with
`--only bf16` and `--only fp32` two of these commands can run side by side.
"""

import math
from collections.abc import Mapping, Sequence

import kinds
import options
import page
from options import Options
from page import Table
from record import Result
from trainings import Training, carry_out_all

NAME = "head"
PROGRAMS: dict[str, Sequence[str]] = {
    "bf16": ("-m", "translate"),
    "fp32": (f"{kinds.HERE}/exact_head.py",),
}
"""What trains each."""


def plan() -> list[Training]:
    """Both forms of a seed, then of the next."""
    config, settings = f"{kinds.HERE}/head.yaml", {"train.precision": "bf16"}
    return [
        Training(NAME, form, config, settings, seed, program=program)
        for seed in kinds.SEEDS
        for form, program in PROGRAMS.items()
    ]


def nats(results: Sequence[Result]) -> list[float]:
    """Loss of the test text a piece."""
    return [math.log(result["perplexity"]) for result in results]


def table(found: Mapping[str, Sequence[Result]]) -> Table:
    """A row a form, and how far bf16 is from fp32 in the mean."""
    rows = Table([page.same(name) for name in ("products of the output layer", "BLEU", "loss, nats a piece", "seeds")])
    bleus = {form: [result["bleu"] for result in results] for form, results in found.items()}
    losses = {form: nats(results) for form, results in found.items()}
    for form, results in found.items():
        seeds = page.number(len(results), 0)
        rows.add(form, page.spread(bleus[form], 2), page.spread(losses[form], 4), seeds)
    if len(found) == len(PROGRAMS):
        away = [page.mean(of["bf16"]) - page.mean(of["fp32"]) for of in (bleus, losses)]
        rows.add("difference", f"{away[0]:+.2f}", f"{away[1]:+.4f}", "")
    return rows


def publish(found: Mapping[str, Sequence[Result]], absent: Sequence[str], chosen: Options) -> None:
    """Put the table where it belongs."""
    said = "[head.yaml](../scripts/experiments/head.yaml)"
    details = page.same(
        f"Multi30k German to English, `test_2016_flickr`; {said}, 1,300 updates, seeds 1, 2 and 3, beam 5, running "
        "average of the weights; all else is in bf16. Mean ± standard deviation."
    )
    notes = page.made_of([result for results in found.values() for result in results], NAME, details)
    lines = "\n".join(f"- {note('en')}" for note in notes + page.missing(absent))
    text = f"{table(found).markdown('en')}\n\n{lines}"
    if not page.replace(chosen.docs / "performance.md", NAME, text):
        print(text)


def main() -> None:
    """Train what is not trained yet, and publish what is there."""
    chosen = options.read(__doc__)
    trainings = plan()
    absent = carry_out_all(trainings, chosen)
    found: dict[str, list[Result]] = {}
    for training in trainings:
        if result := training.result(chosen):
            found.setdefault(training.name, []).append(result)
    if found:
        publish(found, absent, chosen)


if __name__ == "__main__":
    main()

"""What every kind of attention looked at: one sentence of the embedded corpus, one small heat map a kind, by words.

    python scripts/experiments/looks.py ["SENTENCE" "TRANSLATION"]

Makes docs/pictures/kinds.png and the block `kinds` of docs/attention.md from the runs of embedded.py. All are shown the
same translation, so that the rows are the same words.
"""

import json
import subprocess
import sys
from typing import Any

import kinds
import numpy as np
import page
import picture
from embedded import plan
from options import Options
from page import Block, Text
from trainings import Training

from translate.report.fonts import families
from translate.report.heatmap import COLOURS

EXAMPLE = (
    "당신의 형은 학생이었기 때문에 우리는 작은 선물을 샀다",
    "We bought a small present because your brother was a student.",
)
NAME = "kinds"
COLUMNS = 4
Words = dict[str, Any]


def looked_at(training: Training, options: Options, sentence: str, target: str) -> Words:
    """Words of both sides and the weights between them, from the command line."""
    command = [sys.executable, "-m", "translate", "inspect", "attention", "--json", "--target", target]
    command += ["--run", str(training.run(options).root), sentence]
    printed = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True).stdout
    words: Words = json.loads(printed)["words"]
    return words


def draw(seen: dict[str, Words], options: Options) -> None:
    """A heat map a kind; every one with the same colours, from 0 to 1."""
    rows = -(-len(seen) // COLUMNS)
    figure, axes = picture.panels(rows, COLUMNS, 3.1 * COLUMNS, 2.6 * rows)
    font = {"family": families(), "fontsize": 8.0}
    image = None
    for place, axis in enumerate(axes.flat):
        if place >= len(seen):
            axis.set_visible(False)
            continue
        kind, words = list(seen.items())[place]
        image = axis.imshow(np.array(words["weights"]), cmap=COLOURS, vmin=0, vmax=1, aspect="auto")
        axis.grid(visible=False)
        axis.tick_params(length=0)
        first = place % COLUMNS == 0
        axis.set_xticks(range(len(words["src"])), words["src"], rotation=40, ha="right", rotation_mode="anchor", **font)
        axis.set_yticks(range(len(words["tgt"])), words["tgt"] if first else [""] * len(words["tgt"]), **font)
        axis.set_title(kinds.label(kind).replace("`", ""), fontsize=9.5)
    assert image is not None
    figure.colorbar(image, ax=axes, shrink=0.4, label="weight")
    picture.save(figure, NAME, options)


def main() -> None:
    """Ask every run that is there, and draw."""
    sentence, target = sys.argv[1:] if len(sys.argv) == 3 else EXAMPLE
    options = Options()
    done = [training for training in plan() if training.name != "none" and training.result(options) is not None]
    if not done:
        raise SystemExit("no runs yet: python scripts/experiments/embedded.py makes them")
    draw({training.name: looked_at(training, options, sentence, target) for training in done}, options)
    caption = Text(f"What each kind looked at: {sentence}", f"종류마다 본 곳: {sentence}")
    note = page.same("`python scripts/experiments/looks.py`")
    Block(NAME, caption, [], [note]).publish(options.docs)


if __name__ == "__main__":
    main()

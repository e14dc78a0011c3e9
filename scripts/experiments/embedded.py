"""Every kind of attention on the embedded corpus, whose gold word links are known, with the budget of the quickstart.

    python scripts/experiments/embedded.py

Makes docs/pictures/embedded.png and the block `embedded` of docs/attention.md. 18 trainings of 2,400 updates, each
three to five minutes on one core; with `--only` two of these commands can run side by side.
"""

from collections.abc import Mapping, Sequence

import kinds
import options
import page
import picture
from lengths import bleu_by_length, buckets, counts
from page import Block, Table, Text
from record import Record, Result
from trainings import Training, carry_out_all

NAME = "embedded"
GOLD = "data/quickstart/unseen.align"
BUCKETS = buckets(1, 4, 5, 6, 7, 9)
"""Of source words."""


def plan() -> list[Training]:
    """A training a kind; without attention there is nothing to align."""
    config = f"{kinds.HERE}/embedded.yaml"
    return [
        Training(NAME, kind, config, kinds.settings(kind), gold=None if kind == "none" else GOLD)
        for kind in kinds.KINDS
    ]


def percent(result: Result, name: str) -> str:
    """A rate of the word links in percent."""
    return page.number(100 * result["alignment"][name]) if result["alignment"] else page.number(None)


def table(found: Mapping[str, Result], lengths: Mapping[str, Sequence[float | None]]) -> Table:
    """A row a kind."""
    columns = [
        Text("attention", "어텐션"),
        page.same("BLEU"),
        Text("alignment error rate, %", "정렬 오류율, %"),
        Text("precision, %", "정밀도, %"),
        Text("recall, %", "재현율, %"),
        *(Text(f"BLEU, {bucket} words", f"BLEU, {bucket}단어") for bucket in BUCKETS),
    ]
    rows = Table(columns)
    for kind, result in found.items():
        rates = [percent(result, name) for name in ("aer", "precision", "recall")]
        rows.add(kinds.label(kind), page.number(result["bleu"]), *rates, *map(page.number, lengths[kind]))
    return rows


def details(sizes: Sequence[int]) -> Text:
    """Data, config and seed."""
    config = "[embedded.yaml](../scripts/experiments/embedded.yaml)"
    listed = ", ".join(map(str, sizes))
    return Text(
        f"Korean to English, the unseen part of the embedded corpus, by which nothing was chosen "
        f"({listed} sentences by length in words); {config} "
        "with nothing but the kind of attention changed: 2,400 updates, seed 1, beam 3. The references are given, and "
        "each of their words is linked with the word that its first piece looked at most.",
        f"한국어→영어, 어떤 설정을 고를 때도 쓰지 않은 내장 말뭉치의 unseen 부분(단어 수별 문장 수: {listed}). "
        f"{config}에서 어텐션의 종류만 바꾸었다. "
        "2,400번 업데이트, 시드 1, 빔 3. 정답 번역을 주고 타깃 단어마다 첫 조각이 가장 많이 본 단어를 연결로 삼았다.",
    )


def draw(found: Mapping[str, Result], lengths: Mapping[str, Sequence[float | None]], chosen: options.Options) -> None:
    """BLEU by length on the left, alignment error rates on the right."""
    figure, ((left, right),) = picture.panels(1, 2, 10.5, 4.8)
    special = {"none": (picture.RED, "s"), "location": (picture.ORANGE, "^"), "general": (picture.BLUE, "o")}
    for kind, values in lengths.items():
        colour, marker = special.get(kind, (picture.GREY, None))
        style = {"label": kinds.label(kind).replace("`", "")} if kind in special else {"linewidth": 0.8}
        left.plot(range(len(BUCKETS)), values, color=colour, marker=marker, **style)
    if any(kind not in special for kind in lengths):
        left.plot([], [], color=picture.GREY, linewidth=0.8, label="all others")
    left.set_xticks(range(len(BUCKETS)), map(str, BUCKETS))
    left.set_xlabel("words of the source")
    left.set_ylabel("BLEU")
    left.legend(frameon=False)
    rates = {kind: 100 * result["alignment"]["aer"] for kind, result in found.items() if result["alignment"]}
    right.barh(range(len(rates)), list(rates.values()), color=picture.BLUE)
    right.axvline(15, color=picture.RED, linestyle="--", linewidth=1)
    right.set_yticks(range(len(rates)), [kinds.label(kind).replace("`", "") for kind in rates])
    right.invert_yaxis()
    right.set_xlabel("alignment error rate in % (dashed: 15)")
    picture.save(figure, NAME, chosen)


def main() -> None:
    """Train what is not trained yet, and publish what is there."""
    chosen = options.read(__doc__)
    trainings = plan()
    absent = carry_out_all(trainings, chosen)
    done = {training.name: training for training in trainings if training.key not in absent}
    found = {kind: result for kind, training in done.items() if (result := training.result(chosen))}
    if not found:
        return
    lengths = {kind: bleu_by_length(training.run(chosen), BUCKETS) for kind, training in done.items()}
    sizes = counts(next(iter(done.values())).run(chosen), BUCKETS)
    Record.of(chosen.runs, NAME).put("lengths", list(map(str, BUCKETS)), {"sentences": sizes, "bleu": lengths})
    draw(found, lengths, chosen)
    caption = Text("BLEU by source length and alignment error rates", "입력 길이별 BLEU와 정렬 오류율")
    notes = page.made_of(found.values(), NAME, details(sizes)) + page.missing(absent)
    Block(NAME, caption, [table(found, lengths)], notes).publish(chosen.docs)


if __name__ == "__main__":
    main()

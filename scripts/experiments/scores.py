"""The table: every kind of attention in the same RNN, on Multi30k German-English, five minutes of training each.

    python scripts/experiments/scores.py

Makes docs/pictures/scores.png and the block `scores` of docs/attention.md. 28 trainings, two and a half hours on two
cores; run it by itself, since the budget is time. The first seed of all kinds comes first, then the others of
`kinds.REPEATED`, whose spread is the error bar of the rest. Alignment error rates are taken from embedded.py, if it
has run.
"""

from collections.abc import Mapping, Sequence

import kinds
import options
import page
import picture
from page import Block, Table, Text
from record import Record, Result
from trainings import Training, carry_out_all

NAME = "scores"
PLAN = [
    *(kinds.on_multi30k(kind) for kind in kinds.KINDS),
    *(kinds.on_multi30k(kind, seed) for seed in kinds.SEEDS[1:] for kind in kinds.REPEATED),
]


def collect(plan: Sequence[Training], chosen: options.Options) -> dict[str, list[Result]]:
    """The results that are there, by kind, in the order of seeds."""
    found: dict[str, list[Result]] = {training.name: [] for training in plan}
    for training in plan:
        if result := training.result(chosen):
            found[training.name].append(result)
    return {kind: results for kind, results in found.items() if results}


def error_rate(record: Record, kind: str) -> float | None:
    """Alignment error rate in percent on the embedded corpus, if embedded.py has found it."""
    entry = record.find(f"{kind}-s1")
    return 100 * entry["alignment"]["aer"] if entry and entry["alignment"] else None


def table(found: Mapping[str, Sequence[Result]], embedded: Record) -> Table:
    """A row a kind."""
    columns = [
        Text("attention", "어텐션"),
        Text("test perplexity", "테스트 퍼플렉시티"),
        page.same("BLEU"),
        Text("alignment error rate, %", "정렬 오류율, %"),
        Text("updates", "업데이트 수"),
        Text("target tokens a second", "초당 타깃 토큰"),
    ]
    rows = Table(columns)
    for kind, results in found.items():
        perplexity, bleu, steps, speed = (
            [result[key] for result in results if result[key] is not None]
            for key in ("perplexity", "bleu", "steps", "tokens_per_second")
        )
        rate = page.number(error_rate(embedded, kind))
        numbers = (page.spread(perplexity, 2), page.spread(bleu), rate, page.spread(steps, 0), page.spread(speed, 0))
        rows.add(kinds.label(kind), *numbers)
    return rows


def details() -> Text:
    """Data, config and seeds."""
    config = "[scripts/experiments/scores.yaml](../scripts/experiments/scores.yaml)"
    repeated = ", ".join(f"`{kind}`" for kind in kinds.REPEATED)
    return Text(
        f"Multi30k German to English, `test_2016_flickr`; {config}: LSTM 256, no input feeding, beam 5, "
        "running average of the weights. Below the scores, forms of `general`. Mean ± standard deviation of seeds 1, "
        f"2 and 3 for {repeated}; the others have seed 1. Perplexity is by pieces, the same for all; "
        "that of `hard` and `gumbel` is with the likeliest state. The alignment error rate is that of a model of the "
        "same kind on the embedded corpus (the next table).",
        f"Multi30k 독일어→영어, `test_2016_flickr`. {config}: LSTM 256, 입력 피딩 없음, 빔 5, 가중치의 이동 "
        f"평균. 점수 함수 아래의 행은 `general`의 변형이다. {repeated}은 시드 1, 2, 3의 평균 ± "
        "표준편차이고 나머지는 시드 1이다. 퍼플렉시티는 서브워드 단위이며 모든 행이 같은 단위를 쓴다. `hard`와 "
        "`gumbel`의 퍼플렉시티는 확률이 가장 높은 상태를 골랐을 때의 값이다. 정렬 오류율은 내장 말뭉치에서 같은 "
        "종류로 학습한 모델의 값이다(다음 표).",
    )


def draw(found: Mapping[str, Sequence[Result]], chosen: options.Options) -> None:
    """BLEU of each seed on the left, speed on the right, a line a kind."""
    figure, ((left, right),) = picture.panels(1, 2, 9.5, 0.9 + 0.3 * len(found))
    names = [kinds.label(kind).replace("`", "") for kind in found]
    for row, (kind, results) in enumerate(found.items()):
        colour = picture.RED if kind in kinds.FORMS else picture.BLUE
        for axis, key in ((left, "bleu"), (right, "tokens_per_second")):
            values = [result[key] for result in results if result[key] is not None]
            axis.plot(values, [row] * len(values), "o", color=colour, alpha=0.75, markersize=7)
    scores = [results for kind, results in found.items() if kind in kinds.SCORES]
    best = max(page.mean([result["bleu"] for result in results]) for results in scores)
    left.axvspan(best - 1, best, color=picture.SKY, alpha=0.25, linewidth=0)
    left.set_xlabel("BLEU, a point a seed (band: within 1 of the best score)")
    right.set_xlabel("target tokens a second in training")
    right.set_xlim(0, 1.05 * right.get_xlim()[1])
    left.set_yticks(range(len(names)), names)
    right.set_yticks(range(len(names)), [""] * len(names))
    for axis in (left, right):
        axis.invert_yaxis()
    picture.save(figure, NAME, chosen)


def main() -> None:
    """Train what is not trained yet, and publish what is there."""
    chosen = options.read(__doc__)
    absent = carry_out_all(PLAN, chosen)
    found = collect(PLAN, chosen)
    if not found:
        return
    draw(found, chosen)
    notes = page.made_of([result for results in found.values() for result in results], NAME, details())
    caption = Text("BLEU and speed of every kind of attention", "어텐션 종류별 BLEU와 속도")
    tables = [table(found, Record.of(chosen.runs, "embedded"))]
    Block(NAME, caption, tables, notes + page.missing(absent)).publish(chosen.docs)


if __name__ == "__main__":
    main()

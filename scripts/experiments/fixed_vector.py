"""The bottleneck: one fixed context vector against attention, by the length of the source.

    python scripts/experiments/fixed_vector.py

On real text it takes the models of scores.py for `none` and `general` (training the first seed if need be, five minutes
each); on a task that is nothing but remembering, copying 5 to 100 random letters, it trains two models of its own, five
minutes each. Makes docs/pictures/bottleneck.png and the block `bottleneck` of docs/attention.md.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import kinds
import options
import page
import picture
from lengths import Bucket, bleu_by_length, buckets, counts, translated
from options import Options
from page import Block, Table, Text
from record import Record, Result
from trainings import Training, carry_out_all

from translate.durable import durable_text
from translate.run import RunDirectory

NAME = "bottleneck"
REAL = buckets(1, 8, 10, 12, 14, 17)
COPIED = buckets(5, 21, 41, 61, 81)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SHORTEST, LONGEST = 5, 100
COPY_TEXT = Path("runs/experiments/copy")
"""Where copy.yaml looks for it."""
COPY_LINES = {"train": 50_000, "valid": 300, "test": 1_000}
MODELS = {
    "none": Text("RNN, fixed context vector", "RNN, 고정된 컨텍스트 벡터"),
    "general": Text("RNN, attention", "RNN, 어텐션"),
}
STYLES = {"none": (picture.RED, "s"), "general": (picture.BLUE, "o")}

Curve = list[float | None]


def write_copy_text(directory: Path) -> None:
    """Random letters, every length as often as any other; source and target are the same. Always the same text."""
    for seed, (split, count) in enumerate(COPY_LINES.items()):
        draw = random.Random(seed)
        lines = ["".join(draw.choices(LETTERS, k=draw.randint(SHORTEST, LONGEST))) for _ in range(count)]
        for side in ("src", "tgt"):
            path = directory / f"{split}.{side}"
            text = "".join(f"{line}\n" for line in lines)
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                durable_text(path, text)


def copying() -> list[Training]:
    """The models that copy."""
    config = f"{kinds.HERE}/copy.yaml"
    return [Training(NAME, f"copy-{kind}", config, kinds.settings(kind)) for kind in MODELS]


def copied(run: RunDirectory) -> tuple[Curve, Curve]:
    """Share of letters that stand in their place, and of lines without a mistake, in percent for each of COPIED."""
    letters, lines = [], []
    rows = translated(run)
    for bucket in COPIED:
        chosen = [(ref, hyp) for _, ref, hyp in rows if bucket.holds(len(ref))]
        right = [sum(a == b for a, b in zip(ref, hyp, strict=False)) for ref, hyp in chosen]
        letters.append(100 * sum(right) / sum(len(ref) for ref, _ in chosen) if chosen else None)
        lines.append(100 * sum(ref == hyp for ref, hyp in chosen) / len(chosen) if chosen else None)
    return letters, lines


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean over seeds."""
    return [None if None in values else page.mean(values) for values in zip(*curves, strict=True)]


def length_table(first: Text, among: Sequence[Bucket], unit: Text, rows: Mapping[Text, Curve]) -> Table:
    """A row a curve, a column a bucket."""
    made = Table([first, *(Text(f"{bucket} {unit.en}", f"{bucket}{unit.ko}") for bucket in among)])
    for label, curve in rows.items():
        made.add(label, *map(page.number, curve))
    return made


def real_rows(real: Mapping[str, Sequence[Curve]]) -> dict[Text, Curve]:
    """Labels with the number of seeds."""
    return {
        Text(f"{MODELS[kind].en} (seeds: {len(curves)})", f"{MODELS[kind].ko} (시드 {len(curves)}개)"): mean_curve(
            curves
        )
        for kind, curves in real.items()
        if curves
    }


def copy_rows(copies: Mapping[str, tuple[Curve, Curve]]) -> dict[Text, Curve]:
    """Two rows a model."""
    rows: dict[Text, Curve] = {}
    for kind, (letters, lines) in copies.items():
        rows[Text(f"{MODELS[kind].en}: letters", f"{MODELS[kind].ko}: 글자")] = letters
        rows[Text(f"{MODELS[kind].en}: whole lines", f"{MODELS[kind].ko}: 줄 전체")] = lines
    return rows


def details(sizes: Sequence[int]) -> Text:
    """Data, config and seeds."""
    listed = ", ".join(map(str, sizes))
    return Text(
        f"Above: BLEU on Multi30k German to English, `test_2016_flickr` by words of the source ({listed} sentences), "
        "the models of section 8. Below: percent of letters in their place, and of lines without a mistake, of 1,000 "
        "lines of random letters that were to be copied, every length from 5 to 100 as often as any other, in "
        "training too; [scripts/experiments/copy.yaml](../scripts/experiments/copy.yaml), seed 1, greedy search.",
        f"위: Multi30k 독일어→영어 `test_2016_flickr`의 입력 단어 수별 BLEU(문장 수: {listed}), 8절의 모델. 아래: "
        "무작위 글자열 1,000줄을 그대로 베낄 때 제자리에 있는 글자의 비율과 한 글자도 틀리지 않은 줄의 비율(%). "
        "길이는 학습과 테스트 모두 5부터 100까지 고르다. "
        "[scripts/experiments/copy.yaml](../scripts/experiments/copy.yaml), 시드 1, 탐욕 탐색.",
    )


def draw(real: Mapping[str, Sequence[Curve]], copies: Mapping[str, tuple[Curve, Curve]], chosen: Options) -> None:
    """Real text on the left, copying on the right."""
    figure, ((left, right),) = picture.panels(1, 2, 10.5, 4.4)
    for kind, curves in real.items():
        colour, marker = STYLES[kind]
        for curve in curves if len(curves) > 1 else ():
            left.plot(range(len(REAL)), curve, color=colour, linewidth=0.6, alpha=0.5)
        if curves:
            left.plot(range(len(REAL)), mean_curve(curves), color=colour, marker=marker, label=MODELS[kind].en)
    for kind, (letters, lines) in copies.items():
        colour, marker = STYLES[kind]
        label = None if real.get(kind) else MODELS[kind].en
        right.plot(range(len(COPIED)), letters, color=colour, marker=marker, label=label)
        right.plot(range(len(COPIED)), lines, color=colour, marker=marker, linestyle="--", markerfacecolor="white")
    for axis, among in ((left, REAL), (right, COPIED)):
        axis.set_xticks(range(len(among)), map(str, among))
        axis.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=len(MODELS), frameon=False)
    left.set_title("Multi30k German to English", fontsize=10)
    left.set_xlabel("words of the source")
    left.set_ylabel("BLEU")
    right.set_title("Copying random letters (solid: letters in place; dashed: whole lines)", fontsize=10)
    right.set_xlabel("letters to copy")
    right.set_ylabel("right, in %")
    picture.save(figure, NAME, chosen)


def main() -> None:
    """Train what is not trained yet, and publish what is there."""
    chosen = options.read(__doc__)
    write_copy_text(COPY_TEXT)
    real = {kind: [kinds.on_multi30k(kind, seed) for seed in kinds.SEEDS] for kind in MODELS}
    copies = copying()
    absent = carry_out_all([*(trainings[0] for trainings in real.values()), *copies], chosen)
    done = {kind: [each for each in trainings if each.result(chosen)] for kind, trainings in real.items()}
    copied_by = {
        training.name.removeprefix("copy-"): copied(training.run(chosen))
        for training in copies
        if training.result(chosen)
    }
    curves = {kind: [bleu_by_length(each.run(chosen), REAL) for each in each_seed] for kind, each_seed in done.items()}
    used = [each for each_seed in done.values() for each in each_seed]
    found: list[Result] = [result for each in [*used, *copies] if (result := each.result(chosen))]
    if not found:
        return
    made_from = [each.key for each in used] + list(copied_by)
    Record.of(chosen.runs, NAME).put("curves", made_from, {"real": curves, "copied": copied_by})
    draw(curves, copied_by, chosen)
    tables = [
        length_table(Text("BLEU on real text", "실제 문장의 BLEU"), REAL, Text("words", "단어"), real_rows(curves)),
        length_table(Text("copying, %", "베끼기, %"), COPIED, Text("letters", "글자"), copy_rows(copied_by)),
    ]
    sizes = counts(used[0].run(chosen), REAL) if used else []
    caption = Text("Quality by source length with and without attention", "어텐션 유무에 따른 입력 길이별 품질")
    notes = page.made_of(found, "fixed_vector", details(sizes)) + page.missing(absent)
    Block(NAME, caption, tables, notes).publish(chosen.docs)


if __name__ == "__main__":
    main()

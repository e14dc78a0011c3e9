"""Long-term dependence: how far the last word of a translation still feels each word of the source.

    python scripts/experiments/gradients.py

For test sentences of Multi30k, the gradient of the log-probability of the last word of the reference with respect to
the vector of each source piece: for the RNN with one fixed context vector (read in one direction, and in both), with
attention, and for the Transformer; as they are initialised, and trained. Uses models of scores.py and sequences.py and
trains one of its own; what is missing is trained, five minutes each. Makes docs/pictures/gradients.png and the block
`gradients` of docs/attention.md.
"""

import math
from collections.abc import Sequence
from itertools import islice

import kinds
import options
import page
import picture
import torch
from flow import sentence, source_gradients
from options import Options
from page import Block, Table, Text
from record import Record
from trainings import Training, carry_out_all

from translate.models import build_model
from translate.models.seq2seq import Seq2Seq
from translate.text.encoded import raw_texts
from translate.text.lines import read_lines
from translate.text.tokenizer import BOS, Tokenizer
from translate.training.checkpoint import load_model

NAME = "gradients"
SENTENCES = 200
SHORTEST = 10
"""Source pieces, EOS included: in shorter sentences nothing is far away."""
TENTHS = 10
FARTHEST = 20
TINY = 1e-12
"""What stands for a gradient of 0 on a logarithmic axis."""
MODELS = {
    "none-one-way": Text("RNN, fixed context vector, one direction", "RNN, 고정된 컨텍스트 벡터, 한 방향"),
    "none": Text("RNN, fixed context vector, two directions", "RNN, 고정된 컨텍스트 벡터, 양방향"),
    "general": Text("RNN, attention", "RNN, 어텐션"),
    "self-attention": Text("Transformer", "트랜스포머"),
}
STATES = {"initial": Text("initialised", "초기화 직후"), "trained": Text("trained", "학습 후")}

Curves = dict[str, list[float]]
"""Relative size by tenth of the sentence (`tenths`) and by distance from its end (`distances`)."""


def plan() -> dict[str, Training]:
    """The trained models."""
    one_way = kinds.settings("none") | {"model.encoder.bidirectional": "false"}
    return {
        "none-one-way": Training(NAME, "none-one-way", f"{kinds.HERE}/scores.yaml", one_way),
        "none": kinds.on_multi30k("none"),
        "general": kinds.on_multi30k("general"),
        "self-attention": kinds.architecture("self-attention"),
    }


def last_word(tokenizer: Tokenizer, tgt: Sequence[int]) -> int | None:
    """Index of the last piece with a letter in it: a full stop needs no source."""
    lettered = [any(map(str.isalpha, piece)) for piece in tokenizer.pieces_tgt(tgt)]
    return max((index for index, found in enumerate(lettered) if found), default=None)


def sizes(model: Seq2Seq, src: list[int], tgt: list[int], index: int) -> list[float]:
    """Gradient of log p(tgt[index]) at each source position, as a multiple of its mean."""

    def log_probability() -> torch.Tensor:
        features, _ = model(sentence(src), sentence([BOS, *tgt[:index]]))
        log_probs: torch.Tensor = model.project(features[0, -1]).log_softmax(-1)
        return log_probs[tgt[index]]

    norms = source_gradients(model.encoder, log_probability)
    return (norms / norms.mean().clamp_min(TINY)).clamp_min(TINY).tolist()


def curves(model: Seq2Seq, tokenizer: Tokenizer, pairs: Sequence[tuple[list[int], list[int]]]) -> Curves:
    """Geometric means over sentences, by tenth and by distance."""
    tenths: list[list[float]] = [[] for _ in range(TENTHS)]
    distances: list[list[float]] = [[] for _ in range(FARTHEST + 1)]
    for src, tgt in pairs:
        index = last_word(tokenizer, tgt)
        if index is None:
            continue
        for place, size in enumerate(sizes(model, src, tgt, index)):
            tenths[place * TENTHS // len(src)].append(math.log(size))
            distance = len(src) - 1 - place
            if distance <= FARTHEST:
                distances[distance].append(math.log(size))
    return {
        name: [math.exp(page.mean(logs)) for logs in each if logs]
        for name, each in (("tenths", tenths), ("distances", distances))
    }


def examine(training: Training, chosen: Options) -> dict[str, Curves]:
    """The curves of a model as it was initialised and as it is now."""
    run = training.run(chosen)
    loaded = load_model(run, "ema", torch.device("cpu"))
    tokenizer = loaded.tokenizer
    torch.manual_seed(training.seed)
    fresh = build_model(loaded.config.model, tokenizer.src_size, tokenizer.tgt_size).eval()
    (text,) = raw_texts(run, "test")
    lines = zip(read_lines(text.src), read_lines(text.tgt), strict=True)
    encoded = ((tokenizer.encode_src(src), tokenizer.encode_tgt(tgt)) for src, tgt in lines)
    pairs = list(islice((pair for pair in encoded if len(pair[0]) >= SHORTEST), SENTENCES))
    return {"initial": curves(fresh, tokenizer, pairs), "trained": curves(loaded.model, tokenizer, pairs)}


def collect(done: dict[str, Training], chosen: Options) -> dict[str, dict[str, Curves]]:
    """The curves of each model, taken anew only where the model is another."""
    record = Record.of(chosen.runs, NAME)
    found: dict[str, dict[str, Curves]] = {}
    for name, training in done.items():
        result = training.result(chosen)
        made_from = [result, SENTENCES, SHORTEST]
        entry = record.find(f"{name} gradients", made_from)
        if entry is None:
            entry = record.put(f"{name} gradients", made_from, {"curves": examine(training, chosen)})
        found[name] = entry["curves"]
    return found


def table(found: dict[str, dict[str, Curves]]) -> Table:
    """First, middle and last part of the source, initialised and trained."""
    parts = {
        "first tenth": Text("first tenth", "첫 10분의 1"),
        "middle": Text("middle", "가운데"),
        "last tenth": Text("last tenth", "마지막 10분의 1"),
    }
    columns = [
        Text(f"{state.en}: {part.en}", f"{state.ko}: {part.ko}") for state in STATES.values() for part in parts.values()
    ]
    made = Table([Text("gradient, mean = 1", "그래디언트, 평균 = 1"), *columns])
    for name, by_state in found.items():
        cells: list[str] = []
        for state in STATES:
            tenths = by_state[state]["tenths"]
            middle = math.sqrt(tenths[TENTHS // 2 - 1] * tenths[TENTHS // 2])
            cells += [f"{size:.2g}" for size in (tenths[0], middle, tenths[-1])]
        made.add(MODELS[name], *cells)
    return made


def details() -> Text:
    """Data, config and seed."""
    return Text(
        f"The first {SENTENCES} test sentences of Multi30k German to English with at least {SHORTEST} pieces; the "
        "norm of the gradient of the log-probability of the last word of the reference with respect to the vector of "
        "each source piece, divided by its mean in the sentence; geometric means over sentences. Seed 1, five "
        "minutes of training. The fixed context vector also enters every step of the decoder, so what counts is the "
        "way through the encoder: in one direction the first word is farthest, in two directions the middle is.",
        f"Multi30k 독일어→영어 테스트 문장 중 서브워드가 {SHORTEST}개 이상인 처음 {SENTENCES}개. 참조 번역의 마지막 "
        "단어의 로그 확률을 각 입력 서브워드의 벡터로 미분한 그래디언트의 크기를 문장 안의 평균으로 나누고, 문장들에 "
        "대해 기하 평균을 냈다. 시드 1, 학습 5분. 고정된 컨텍스트 벡터는 디코더의 모든 스텝에 들어가므로 인코더 안의 "
        "거리가 문제이다. 한 방향이면 첫 단어가, 양방향이면 가운데가 가장 멀다.",
    )


def draw(found: dict[str, dict[str, Curves]], chosen: Options) -> None:
    """Initialised above, trained below; by tenth on the left, by distance from the end on the right."""
    figure, axes = picture.panels(2, 2, 10.5, 7.2)
    for row, (state, title) in enumerate(STATES.items()):
        for column, name in enumerate(("tenths", "distances")):
            axis = axes[row][column]
            for model, by_state in found.items():
                number = list(MODELS).index(model)
                values = by_state[state][name]
                places = [(index + 0.5) / TENTHS for index in range(TENTHS)] if name == "tenths" else range(len(values))
                style = {"color": picture.COLOURS[number], "marker": picture.MARKERS[number], "markersize": 4}
                axis.plot(places, values, label=MODELS[model].en, **style)
            picture.logarithmic(axis, "{x:g}")
            axis.set_title(title.en, fontsize=10)
        axes[row][0].set_ylabel("gradient, 1 = mean of the sentence")
        axes[row][0].set_xlabel("place in the source, 0 = first word, 1 = last")
        axes[row][1].set_xlabel("pieces from the end of the source")
        axes[row][1].set_xticks(range(0, FARTHEST + 1, 5))
        axes[row][1].invert_xaxis()
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    picture.save(figure, NAME, chosen)


def main() -> None:
    """Train what is not trained yet, measure, and publish what is there."""
    chosen = options.read(__doc__)
    trainings = plan()
    absent = carry_out_all(list(trainings.values()), chosen)
    done = {name: training for name, training in trainings.items() if training.key not in absent}
    if not done:
        return
    found = collect(done, chosen)
    draw(found, chosen)
    results = [result for training in done.values() if (result := training.result(chosen))]
    caption = Text("Size of the gradient at each source position", "입력 위치별 그래디언트의 크기")
    notes = page.made_of(results, NAME, details()) + page.missing(absent)
    Block(NAME, caption, [table(found)], notes).publish(chosen.docs)


if __name__ == "__main__":
    main()

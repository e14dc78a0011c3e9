"""Three ways of processing a sequence: recurrence, convolution and self-attention with as many weights each.

    python scripts/experiments/sequences.py

Five minutes of Multi30k for each (BLEU); speed of training and of decoding and memory against length, each point in a
process of its own, the three taking turns; and what one layer can see: through which distance a gradient flows. Half an
hour on two cores; run it by itself, since it measures time. Makes docs/pictures/sequences.png and the block `sequences`
of docs/attention.md.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import kinds
import options
import page
import picture
import torch
from flow import sentence, source_gradients
from options import Options
from page import Block, Table, Text
from record import Record, Result
from trainings import carry_out_all

from translate.config import ConvEncoderConfig, EncoderConfig, RnnEncoderConfig, TransformerEncoderConfig
from translate.config.reader import load_config
from translate.models import build_model
from translate.models.conv import ConvEncoder
from translate.models.rnn import RnnEncoder
from translate.models.seq2seq import Encoder
from translate.models.transformer import TransformerEncoder

NAME = "sequences"
WAYS = {
    "recurrence": Text("recurrence", "순환"),
    "convolution": Text("convolution", "합성곱"),
    "self-attention": Text("self-attention", "셀프 어텐션"),
}
LENGTHS = (16, 32, 64, 128, 256, 512, 1024)
ROUNDS = 3
WORDS = 32
"""Length of the sentence whose gradients are measured."""
FIGURES = {
    "train_tokens_per_second": Text("training, tokens/s", "학습, 토큰/초"),
    "steps_per_second": Text("decoding, steps/s", "디코딩, 스텝/초"),
    "memory_mib": Text("training memory, MiB", "학습 메모리, MiB"),
}
VOCABULARY, WIDTH = 6000, 32

Costs = dict[str, dict[int, dict[str, float]]]
"""By way, length and figure: medians over rounds."""


def weights(way: str) -> tuple[int, int]:
    """Number of weights without and with word vectors."""
    model = build_model(load_config(Path(f"{kinds.HERE}/{way}.yaml")).model, VOCABULARY, VOCABULARY)
    total = sum(parameter.numel() for parameter in model.parameters())
    return total - model.encoder.embedding.weight.numel(), total


def measure_costs(chosen: Options) -> Costs:
    """Measure what is not measured yet; the three take turns, and who begins changes."""
    record = Record.of(chosen.runs, NAME)
    turns: list[tuple[str, int]] = []
    for number in range(ROUNDS):
        for length in LENGTHS:
            order = list(WAYS)[number:] + list(WAYS)[:number]
            turns += [(f"cost {way} {length} round {number}", length) for way in order]
    for name, length in turns:
        if chosen.table or chosen.only not in name or record.find(name) is not None:
            continue
        config = f"{kinds.HERE}/{name.split()[1]}.yaml"
        print(name, flush=True)
        command = [sys.executable, str(Path(__file__).with_name("cost.py")), config, str(length)]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        record.put(name, [config, length], json.loads(answer))
    return medians(record)


def medians(record: Record) -> Costs:
    """Medians over the rounds that are there."""
    costs: Costs = {way: {} for way in WAYS}
    for way in WAYS:
        for length in LENGTHS:
            rounds = [record.find(f"cost {way} {length} round {number}") for number in range(ROUNDS)]
            found = [entry for entry in rounds if entry is not None]
            if found:
                costs[way][length] = {key: statistics.median(entry[key] for entry in found) for key in FIGURES}
    return costs


def encoder(way: str, layers: int) -> Encoder:
    """A small encoder with as many layers, in float64 so that a small gradient is not taken for none."""
    known: EncoderConfig = load_config(Path(f"{kinds.HERE}/{way}.yaml")).model.encoder
    torch.manual_seed(1)
    change = {"layers": layers, "width": WIDTH}
    match known:
        case RnnEncoderConfig():
            built: Encoder = RnnEncoder(known.model_copy(update={**change, "bidirectional": False}), VOCABULARY)
        case ConvEncoderConfig():
            built = ConvEncoder(known.model_copy(update=change), VOCABULARY)
        case TransformerEncoderConfig():
            built = TransformerEncoder(known.model_copy(update=change), VOCABULARY)
    return built.double().eval()


def gradients(built: Encoder, place: int) -> list[float]:
    """How the state at a place depends on each word, in a random direction: the sum of a normed state is constant."""
    torch.manual_seed(2)
    words = sentence(torch.randint(4, VOCABULARY, (WORDS,)).tolist())
    direction = torch.randn(WIDTH, dtype=torch.float64)
    return source_gradients(built, lambda: built(words).states[0, place] @ direction).tolist()


def distance_in_one_layer(seen: Sequence[Sequence[float]]) -> int:
    """The farthest word that any state depends on: seen[t][s] is the gradient of state t at word s."""
    return max(abs(t - s) for t, row in enumerate(seen) for s, size in enumerate(row) if size > 0)


def layers_from_end_to_end(way: str) -> int:
    """The fewest layers through which the last state depends on the first word."""
    return next(layers for layers in range(1, WORDS) if gradients(encoder(way, layers), WORDS - 1)[0] > 0)


def way_table(results: Mapping[str, Result], seen: Mapping[str, list[list[float]]]) -> Table:
    """What the three are, and how well they translate."""
    columns = [
        Text("", ""),
        Text("weights without word vectors", "단어 벡터를 뺀 가중치 수"),
        Text("weights", "가중치 수"),
        Text("BLEU", "BLEU"),
        Text("test perplexity", "테스트 퍼플렉시티"),
        Text("updates", "업데이트 수"),
        Text("distance in one layer", "한 층에서 닿는 거리"),
        Text(f"layers from end to end of {WORDS} words", f"{WORDS}단어의 끝에서 끝까지 필요한 층"),
        Text("steps one after another on that way", "그 경로에서 차례로 거치는 스텝"),
    ]
    made = Table(columns)
    for way, label in WAYS.items():
        result = results.get(way, {})
        layers = layers_from_end_to_end(way)
        steps = layers * (WORDS if way == "recurrence" else 1)
        made.add(
            label,
            *(f"{count:,}" for count in weights(way)),
            *(page.number(result.get(key), digits) for key, digits in (("bleu", 1), ("perplexity", 2), ("steps", 0))),
            *map(str, (distance_in_one_layer(seen[way]), layers, steps)),
        )
    return made


def cost_table(costs: Costs) -> Table:
    """A row a length."""
    columns = [
        Text(f"{figure.en}: {way.en}", f"{figure.ko}: {way.ko}") for figure in FIGURES.values() for way in WAYS.values()
    ]
    made = Table([Text("length", "길이"), *columns])
    for length in LENGTHS:
        cells = [page.number(costs[way].get(length, {}).get(figure), 0) for figure in FIGURES for way in WAYS]
        made.add(str(length), *cells)
    return made


def details() -> Text:
    """Data, configs and seed."""
    listed = ", ".join(f"[{way}.yaml](../scripts/experiments/{way}.yaml)" for way in WAYS)
    return Text(
        f"{listed}: three layers on each side, width 256, seed 1, Multi30k German to English, `test_2016_flickr`, "
        "greedy search. The gradients are those of one layer with random weights in float64 (the recurrent one reads "
        "in one direction). Speed and memory: random ids, batches of 2,048 tokens on each side whatever the length, "
        "forward and backward pass; decoding takes 8 sentences a step. fp32, all cores, a process for each point, "
        "medians of 3 rounds in which the three took turns.",
        f"{listed}: 양쪽 3층, 너비 256, 시드 1, Multi30k 독일어→영어 `test_2016_flickr`, 탐욕 탐색. 그래디언트는 "
        "무작위 가중치를 가진 한 층의 것이며 float64로 계산했다(순환층은 한 방향). 속도와 메모리: 무작위 id, 길이와 "
        "상관없이 배치 하나에 양쪽 각각 2,048토큰, 순전파와 역전파. 디코딩은 한 스텝에 8문장씩. fp32, 모든 코어, "
        "측정마다 별도의 프로세스, 셋이 번갈아 3회 잰 값의 중앙값.",
    )


def draw(seen: Mapping[str, list[list[float]]], costs: Costs, chosen: Options) -> None:
    """Above, what one layer sees; below, what it costs."""
    figure, axes = picture.panels(2, 3, 11, 7)
    for axis, (way, label) in zip(axes[0], WAYS.items(), strict=True):
        matrix = torch.tensor(seen[way], dtype=torch.float64)
        logs = (matrix / matrix.max()).log10().masked_fill(matrix == 0, float("nan"))
        image = axis.imshow(logs, cmap="viridis", vmin=-4, vmax=0)
        axis.set_facecolor("0.92")
        axis.grid(visible=False)
        axis.set_title(f"{label.en}: one layer", fontsize=10)
        axis.set_xlabel("word")
    axes[0][0].set_ylabel("state")
    figure.colorbar(image, ax=list(axes[0]), label="log10 of the gradient, 0 = largest;\ngrey: none at all", shrink=0.9)
    for axis, (name, title) in zip(axes[1], FIGURES.items(), strict=True):
        for number, (way, label) in enumerate(WAYS.items()):
            points = [(length, figures[name]) for length, figures in costs[way].items()]
            style = {"color": picture.COLOURS[number], "marker": picture.MARKERS[number], "label": label.en}
            axis.plot([x for x, _ in points], [y for _, y in points], **style)
        if not any(costs.values()):
            continue
        axis.set_xscale("log", base=2)
        picture.logarithmic(axis, "{x:,.0f}")
        axis.set_xticks(LENGTHS, map(str, LENGTHS))
        axis.set_xlabel("length")
        axis.set_ylabel(title.en)
    axes[1][0].legend(frameon=False, fontsize=8)
    picture.save(figure, NAME, chosen)


def main() -> None:
    """Do what is not done yet, and publish what is there."""
    chosen = options.read(__doc__)
    trainings = [kinds.architecture(way) for way in WAYS]
    absent = carry_out_all(trainings, chosen)
    costs = measure_costs(chosen)
    seen = {way: [gradients(encoder(way, 1), place) for place in range(WORDS)] for way in WAYS}
    results = {training.name: result for training in trainings if (result := training.result(chosen))}
    record = Record.of(chosen.runs, NAME)
    record.put("gradients of one layer", [WORDS, WIDTH], {"seen": seen})
    measured = [entry for name, entry in record.entries.items() if name.startswith("cost ")]
    draw(seen, costs, chosen)
    caption = Text("What one layer sees, and what it costs", "한 층이 보는 범위와 그 비용")
    notes = page.made_of([*results.values(), *measured], NAME, details()) + page.missing(absent)
    Block(NAME, caption, [way_table(results, seen), cost_table(costs)], notes).publish(chosen.docs)


if __name__ == "__main__":
    main()

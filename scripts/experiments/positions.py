"""Positions: self-attention without them does not know order, and what that costs.

    python scripts/experiments/positions.py

Permute a sentence: without positions the states of the encoder are permuted in the same way and nothing else changes.
BLEU of Transformers with sinusoids, learned vectors and nothing, five minutes of Multi30k each. The decoder's
self-attention is masked, which alone tells a decoder something of the order of what it has written; so there is also a
model that lacks positions in the encoder only. Makes docs/pictures/positions.png and the block `positions` of
docs/attention.md. Four trainings, of which one is shared with sequences.py.
"""

import random

import kinds
import options
import page
import picture
import torch
from flow import sentence
from options import Options
from page import Block, Table, Text
from record import Record
from torch import Tensor
from trainings import Training, carry_out_all

from translate.report.fonts import families, printable
from translate.text.encoded import raw_texts
from translate.text.lines import read_lines
from translate.training.checkpoint import LoadedModel, load_model

NAME = "positions"
FORMS = {
    "sinusoidal": Text("sinusoids", "사인파"),
    "learned": Text("learned", "학습된 벡터"),
    "none-in-encoder": Text("none in the encoder, sinusoids in the decoder", "인코더에는 없음, 디코더에는 사인파"),
    "none": Text("none", "없음"),
}
SHOWN = ("none", "sinusoidal")
"""What the picture compares."""
FEATURES = 40
LINE = 36
"""The test sentence that is permuted."""


def plan() -> dict[str, Training]:
    """The models; sinusoids are the Transformer that sequences.py trains."""

    def positions(encoder: str, decoder: str) -> dict[str, str | int | float]:
        return {"model.encoder.positions": encoder, "model.decoder.positions": decoder}

    config = f"{kinds.HERE}/self-attention.yaml"
    return {
        "sinusoidal": kinds.architecture("self-attention"),
        "learned": Training(NAME, "learned", config, positions("learned", "learned")),
        "none-in-encoder": Training(NAME, "none-in-encoder", config, positions("none", "sinusoidal")),
        "none": Training(NAME, "none", config, positions("none", "none")),
    }


def permuted(count: int) -> list[int]:
    """A fixed order of `count` pieces; the last, EOS, stays where it is."""
    order = list(range(count - 1))
    random.Random(1).shuffle(order)
    return [*order, count - 1]


@torch.no_grad()
def states(loaded: LoadedModel, ids: list[int]) -> tuple[Tensor, Tensor]:
    """Encoder states (S, D) of a sentence, and of its permutation, each put back to its piece; in float64."""
    order = permuted(len(ids))
    encoder = loaded.model.double().encoder
    plain = encoder(sentence(ids)).states[0]
    mixed = encoder(sentence([ids[place] for place in order])).states[0]
    back = torch.empty_like(mixed)
    back[order] = mixed
    return plain, back


def difference(pair: tuple[Tensor, Tensor]) -> float:
    """Mean size of the difference over mean size of the states."""
    plain, back = pair
    return float((plain - back).norm(dim=-1).mean() / plain.norm(dim=-1).mean())


def table(done: dict[str, Training], pairs: dict[str, tuple[Tensor, Tensor]], chosen: Options) -> Table:
    """A row a form."""
    columns = [
        Text("positions", "위치"),
        page.same("BLEU"),
        Text("test perplexity", "테스트 퍼플렉시티"),
        Text("updates", "업데이트 수"),
        Text("change of the states when the words are permuted", "단어 순서를 바꿀 때 상태의 변화"),
    ]
    made = Table(columns)
    for form, training in done.items():
        result = training.result(chosen)
        assert result is not None
        numbers = [page.number(result[key], digits) for key, digits in (("bleu", 1), ("perplexity", 2), ("steps", 0))]
        made.add(FORMS[form], *numbers, f"{difference(pairs[form]):.1e}")
    return made


def details() -> Text:
    """Data, config and seed."""
    config = "[scripts/experiments/self-attention.yaml](../scripts/experiments/self-attention.yaml)"
    return Text(
        f"Multi30k German to English, `test_2016_flickr`; {config}, seed 1, greedy search. The last column is the "
        "mean size of the difference, as a multiple of the mean size of the states, for the sentence of the picture, "
        "in float64. Without positions the decoder still knows something of the order of its own words, since its "
        "self-attention is masked; the encoder knows nothing.",
        f"Multi30k 독일어→영어 `test_2016_flickr`; {config}, 시드 1, 탐욕 탐색. 마지막 열은 그림의 문장에서 잰 차이의 "
        "평균 크기를 상태의 평균 크기로 나눈 값이다(float64). 위치가 없어도 디코더는 셀프 어텐션이 가려져 있기 "
        "때문에 자기가 쓴 단어의 순서를 어느 정도 안다. 인코더는 전혀 모른다.",
    )


def draw(pairs: dict[str, tuple[Tensor, Tensor]], pieces: list[str], chosen: Options) -> None:
    """A row a form: the states of the sentence, those of its permutation put back in order, and the difference."""
    figure, axes = picture.panels(len(SHOWN), 3, 11, 1.2 + 0.24 * len(pieces) * len(SHOWN))
    for row, form in enumerate(SHOWN):
        plain, back = pairs[form]
        titles = ("as written", "permuted and put back", "difference")
        for column, (matrix, title) in enumerate(zip((plain, back, plain - back), titles, strict=True)):
            axis = axes[row][column]
            image = axis.imshow(matrix[:, :FEATURES], cmap="PuOr", vmin=-3, vmax=3, aspect="auto")
            axis.grid(visible=False)
            axis.set_title(f"positions: {form}, {title}", fontsize=9)
            axis.set_yticks([])
        labels = [printable(piece) for piece in pieces]
        axes[row][0].set_yticks(range(len(pieces)), labels, family=families(), fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel(f"the first {FEATURES} features of each state")
    figure.colorbar(image, ax=list(axes.flat), shrink=0.6, label="value")
    picture.save(figure, NAME, chosen)


def main() -> None:
    """Train what is not trained yet, and publish what is there."""
    chosen = options.read(__doc__)
    trainings = plan()
    absent = carry_out_all(list(trainings.values()), chosen)
    done = {form: training for form, training in trainings.items() if training.key not in absent}
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    pieces: list[str] = []
    for form, training in done.items():
        run = training.run(chosen)
        loaded = load_model(run, "ema", torch.device("cpu"))
        (text,) = raw_texts(run, "test")
        ids = loaded.tokenizer.encode_src(list(read_lines(text.src))[LINE])
        pairs[form], pieces = states(loaded, ids), loaded.tokenizer.pieces_src(ids)
        Record.of(chosen.runs, NAME).put(f"{form} permuted", ids, {"difference": difference(pairs[form])})
    if set(SHOWN) <= pairs.keys():
        draw(pairs, pieces, chosen)
    if not done:
        return
    results = [result for training in done.values() if (result := training.result(chosen))]
    caption = Text("Encoder states of a sentence and of its permutation", "문장과 순서를 바꾼 문장의 인코더 상태")
    notes = page.made_of(results, NAME, details()) + page.missing(absent)
    Block(NAME, caption, [table(done, pairs, chosen)], notes).publish(chosen.docs)


if __name__ == "__main__":
    main()

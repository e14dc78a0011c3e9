"""The parts of the corpus: training, validation and test, with no sentence in two of them on either side."""

from corpus.conjugation import Style
from corpus.dice import Dice
from corpus.phrase import Pair
from corpus.sentences import introductions, sentence

SEED = 20
SIZES = {"test": 400, "valid": 400, "train": 14_000}
UNSEEN, UNSEEN_SEED = 400, 21
"""A second test part, for comparisons whose settings were chosen by looking at the first."""
HELD_OUT = "I am a student."
"""Never in the training part, in no style; in the plain one it opens the test part."""
STYLES: tuple[Style, ...] = ("plain", "polite", "formal")


def build() -> dict[str, list[Pair]]:
    """The pairs of each part, always the same.

    An English sentence belongs to one part, that of its first pair, so that its other Korean forms cannot leak into
    another; a Korean sentence has one translation, so neither can it.
    """
    parts: dict[str, list[Pair]] = {name: [] for name in SIZES}
    homes: dict[str, str] = {}
    seen: dict[str, str] = {}

    def add(pair: Pair, part: str) -> None:
        if pair.ko in seen:
            assert seen[pair.ko] == pair.en, f"{pair.ko} is both {seen[pair.ko]!r} and {pair.en!r}"
            return
        is_new = pair.en not in homes
        home = homes.setdefault(pair.en, part)
        if is_new or (home == "train" and len(parts[home]) < SIZES[home]):
            seen[pair.ko] = pair.en
            parts[home].append(pair)

    for pair in (pair for style in STYLES for pair in introductions(style)):
        add(pair, "test" if pair.en == HELD_OUT else "train")
    dice = Dice(SEED)
    while unfinished := [name for name in SIZES if len(parts[name]) < SIZES[name]]:
        add(sentence(dice), dice.weighted([(SIZES[name], name) for name in unfinished]))
    return parts


def unseen(taken: set[str]) -> list[Pair]:
    """Further sentences of the same grammar, of which neither side is `taken` or comes twice."""
    dice, taken = Dice(UNSEEN_SEED), set(taken)
    pairs: list[Pair] = []
    while len(pairs) < UNSEEN:
        pair = sentence(dice)
        if pair.ko not in taken and pair.en not in taken:
            taken |= {pair.ko, pair.en}
            pairs.append(pair)
    return pairs


def files() -> dict[str, bytes]:
    """The content of each file of the corpus by its name."""
    parts = build()
    parts["unseen"] = unseen({side for pairs in parts.values() for pair in pairs for side in (pair.ko, pair.en)})
    content = {}
    for name, pairs in parts.items():
        content[f"{name}.ko"] = [pair.ko for pair in pairs]
        content[f"{name}.en"] = [pair.en for pair in pairs]
    for name in ("test", "unseen"):
        content[f"{name}.align"] = [pair.alignment for pair in parts[name]]
    return {name: "".join(line + "\n" for line in lines).encode() for name, lines in content.items()}

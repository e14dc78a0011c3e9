"""Every valid combination of the choices of attention, each held to the invariants of every model, in float64.

Usage, from the root of the repository: python -m scripts.attention_product [rnn] [conv] [transformer]

The suite holds a few combinations to them among which every two choices meet (tests/test_invariants.py); this goes
through all: score, scope, selection, normalizer, features, coverage and heads for the three decoders, placement and
input feeding besides for the recurrent one, and the models without attention. A combination counts as valid where
the rules for configs let it pass. For each a model with random weights must
- give step by step what it gives for all positions at once,
- give for a padded sentence among others what it gives for it alone,
- give for a position the same whatever comes after it,
- record the same weights in both forms, and with them compute the same as without,
- record weights that are shares of the real words.
Prints how many were checked and which failed, and ends with 1 if any did. Takes some minutes on one core.
"""

import sys
import time
from collections.abc import Callable, Iterator
from typing import get_args

import torch

from tests import invariants
from tests.choices import Kind, all_choices, decoder_of, encoder_for, is_valid, name_of
from translate.config import (
    ConvAttentionConfig,
    ConvDecoderConfig,
    DecoderConfig,
    EncoderConfig,
    RnnAttentionConfig,
    RnnDecoderConfig,
    RnnEncoderConfig,
)
from translate.models.seq2seq import Seq2Seq

Case = tuple[str, EncoderConfig, DecoderConfig, bool]
"""What a combination is called, what it is made of, and whether its weights sum to 1."""


def cases(kind: Kind) -> Iterator[Case]:
    """All valid combinations for one kind of decoder."""
    for choice in all_choices(kind):
        if is_valid(kind, choice):
            whole = choice["scope"] != "local_p" or choice["selection"] != "soft"
            yield name_of(choice), encoder_for(kind, choice), decoder_of(kind, choice), whole
    if kind == "rnn":
        for feeding in (False, True):
            without = RnnDecoderConfig(width=8, input_feeding=feeding, attention=RnnAttentionConfig(score="none"))
            yield "none", RnnEncoderConfig(width=6), without, True
    if kind == "conv":
        across = ConvAttentionConfig(score="none")
        yield "none", RnnEncoderConfig(width=6), ConvDecoderConfig(layers=2, width=8, attention=across), True


def checks(whole: bool) -> dict[str, Callable[[Seq2Seq], None]]:
    """What each model is asked."""
    return {
        "stepping equals teacher forcing": lambda model: invariants.stepping_equals_teacher_forcing(model, steps=7),
        "padding and neighbours change nothing": invariants.padding_and_neighbours_change_nothing,
        "the future is invisible": invariants.the_future_is_invisible,
        "recorded weights are the same": invariants.recorded_weights_are_the_same_in_both_forms,
        "weights are shares": lambda model: invariants.recorded_weights_are_shares_of_real_tokens(model, whole),
    }


def failures(case: Case) -> Iterator[str]:
    """A line for each thing that does not hold."""
    name, encoder, decoder, whole = case
    model = invariants.build(encoder, decoder)
    for what, check in checks(whole).items():
        try:
            check(model)
        except Exception as error:  # whatever it is, the other combinations are still worth knowing
            yield f"{decoder.kind} {name}: {what}: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def main() -> None:
    """Go through the kinds named on the command line, or all."""
    kinds: tuple[Kind, ...] = get_args(Kind)
    asked = [kind for kind in kinds if kind in sys.argv[1:]] or kinds
    if unknown := set(sys.argv[1:]) - set(kinds):
        sys.exit(f"error: found {', '.join(sorted(unknown))}, expected one of {', '.join(kinds)}")
    torch.set_num_threads(1)  # more are slower for tensors this small
    broken = 0
    for kind in asked:
        began, count = time.monotonic(), 0
        refused = sum(not is_valid(kind, choice) for choice in all_choices(kind))
        for case in cases(kind):
            count += 1
            found = list(failures(case))
            broken += bool(found)
            for line in found:
                print(line, flush=True)
        print(f"{kind}: {count} combinations, {refused} refused by the config, {time.monotonic() - began:.0f} s")
    print(f"{broken} combinations failed")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()

"""The command line, but with the products of the output layer in fp32 whatever the others are in.

    python scripts/experiments/exact_head.py train --config FILE

`head.py` compares what it trains with what is trained as usual.
"""

import sys

import torch
from torch import Tensor

import translate.training.loss as door
from translate.cli import main
from translate.training.projected_loss import projected_loss


def exact(
    features: Tensor, weight: Tensor, bias: Tensor | None, words: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """`projected_loss` outside of autocast."""
    with torch.autocast(features.device.type, enabled=False):
        return projected_loss(features.float(), weight, bias, words, smoothing)


if __name__ == "__main__":
    door.projected_loss = exact  # type: ignore[attr-defined]
    sys.exit(main())

"""How fast this machine multiplies matrices: `python ceiling.py` prints GFLOP/s in fp32 and bf16 as JSON."""

import json
import time

import torch

SHAPE = (4096, 256, 1024)
"""Rows of an update's tokens, times a matrix as in a feed-forward layer of width 256."""
LARGEST_ERROR = 1e-5
"""Of the fp32 product, relative: with more it is bf16 under another name."""


def gflops(dtype: torch.dtype, seconds: float) -> float:
    """The best that a product of SHAPE reached within `seconds`, in 10^9 operations a second."""
    rows, inner, columns = SHAPE
    left, right = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
    out = left @ right
    best, ends = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < ends:
        started = time.perf_counter()
        torch.mm(left, right, out=out)
        best = min(best, time.perf_counter() - started)
    return 2e-9 * rows * inner * columns / best


def is_exact() -> bool:
    """Whether an fp32 product as set now is one."""
    left, right = torch.randn(512, 256), torch.randn(256, 512)
    exact = left.double() @ right.double()
    return float(((left @ right).double() - exact).abs().max() / exact.abs().max()) < LARGEST_ERROR


def ceilings(seconds: float = 1.0) -> dict[str, float]:
    """GFLOP/s by number format; fp32 as fast as any of PyTorch's settings gives it without rounding the factors."""
    found = [0.0]
    before = torch.get_float32_matmul_precision()
    for setting in ("highest", "high", "medium"):
        torch.set_float32_matmul_precision(setting)
        if is_exact():
            found.append(gflops(torch.float32, seconds))
    torch.set_float32_matmul_precision(before)
    return {"fp32": max(found), "bf16": gflops(torch.bfloat16, seconds)}


if __name__ == "__main__":
    print(json.dumps(ceilings()))

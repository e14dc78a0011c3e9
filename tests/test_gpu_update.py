"""An update as a GPU gets it, done on tensors that have a shape and no numbers: whatever asked for a number would fail.

They say of themselves that they are on a GPU, so that all goes the way it goes there; the variable-length kernel is
present with the shapes that it declares. A recurrent encoder is left out: PyTorch packs no sequences without numbers.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.attention.varlen as kernel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode

from tests.tiny import tiny_config, tiny_corpus
from translate.config import Config, ModelConfig
from translate.run import RunDirectory
from translate.stages.rehearsal import rehearsal
from translate.training import loop as loop_module
from translate.training import loss, resident
from translate.training.averaging import MovingAverage
from translate.training.feed import Feed
from translate.training.guard import Guard, LossScale
from translate.training.loop import Loop
from translate.training.optimizer import build_optimizer
from translate.training.resident import Resident

CPU = torch.device("cpu")
UPDATES = 2
"""Before the second, the optimizer has a memory."""
TRANSFORMER = {"kind": "transformer", "layers": 2, "width": 16, "heads": 2, "feed_forward": 16, "dropout": 0.1}
CONV = {"kind": "conv", "width": 16, "layers": 2, "dropout": 0.1}
RNN = {"kind": "rnn", "width": 16, "layers": 2, "dropout": 0.1}


def rnn(**attention: object) -> dict[str, object]:
    return RNN | {"attention": attention}


MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "transformer": (TRANSFORMER, TRANSFORMER),
    "transformer, norms after": (TRANSFORMER | {"norm": "post", "positions": "learned"},) * 2,
    "transformer, weights dropped": (TRANSFORMER | {"attention_dropout": 0.1},) * 2,
    "transformer, additive": (TRANSFORMER, TRANSFORMER | {"attention": {"score": "additive"}}),
    "convolutions": (CONV, CONV),
    "rnn, fed, by hand": (TRANSFORMER, rnn(score="general")),
    "rnn, fed, additive with coverage": (TRANSFORMER, rnn(score="additive", coverage=True)),
    "rnn, not fed": (TRANSFORMER, rnn(score="dot") | {"input_feeding": False}),
    "rnn, attending before": (TRANSFORMER, rnn(score="additive", placement="before")),
    "rnn, a fixed vector": (CONV, rnn(score="none")),
    "rnn, hard choices": (TRANSFORMER, rnn(score="general", selection="hard")),
    "rnn, gumbel": (TRANSFORMER, rnn(score="general", selection="gumbel")),
    "rnn, sparsemax in a window": (TRANSFORMER, rnn(score="general", normalizer="sparsemax", scope="local_p")),
    "rnn, a window that moves on": (TRANSFORMER, rnn(score="general", scope="local_m")),
    "gru": (TRANSFORMER, rnn(score="general") | {"cell": "gru"}),
}


WHOLE_LAYERS = {"rnn, not fed", "rnn, a fixed vector"}
"""Those of which cuDNN runs the recurrent layers."""


def without_numbers(mode: FakeTensorMode, tensor: Tensor) -> FakeTensor:
    return FakeTensor(mode, tensor.detach().to("meta"), CPU)


def as_on_a_gpu(loop: Loop, mode: FakeTensorMode, config: Config, *, fp16: bool) -> None:
    """Take the numbers out of a loop: weights, and whatever comes of them, and the text."""
    learner = loop.learner
    for module in learner.model.modules():
        for name, parameter in module._parameters.items():
            module._parameters[name] = None if parameter is None else nn.Parameter(without_numbers(mode, parameter))
        if isinstance(module, nn.RNNBase):
            module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]
    learner.optimizer = build_optimizer(learner.model, config.train)
    learner.ema = MovingAverage(learner.model, 0.9)
    loop.guard = Guard(learner.optimizer, LossScale(CPU) if fp16 else None)
    loop.machine = replace(loop.machine, precision="fp16" if fp16 else "bf16")
    text = Resident.of(loop.feed.plan.split, CPU)
    loop.feed.text = Resident(text.split, *(without_numbers(mode, side) for side in (text.src, text.tgt)))


def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sides: Sequence[dict[str, Any]]) -> tuple[Loop, Config]:
    """A training of the tiny text that is about to make its first update."""
    monkeypatch.setattr(FakeTensor, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda _: None)
    monkeypatch.setitem(loop_module.READ_TOGETHER, "cpu", loop_module.READ_TOGETHER["cuda"])
    for module in (loss, resident):
        monkeypatch.setattr(module, "to_device", lambda array, _: torch.empty(array.shape, dtype=torch.int64))
    config = tiny_config(tiny_corpus(tmp_path / "text"), log_every=1000, update_tokens=30, batch_tokens=20)
    model = ModelConfig.model_validate(dict(zip(("encoder", "decoder"), sides, strict=True)))
    config = config.model_copy(update={"model": model})
    return rehearsal(config, RunDirectory(tmp_path / "run").create()), config


@pytest.mark.parametrize("name", MODELS)
def test_an_update_waits_for_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    passes_without_numbers(tmp_path, monkeypatch, name, fp16=False)


@pytest.mark.parametrize("name", ["transformer", "rnn, fed, by hand"])
def test_nor_with_a_loss_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    passes_without_numbers(tmp_path, monkeypatch, name, fp16=True)


def passes_without_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, fp16: bool) -> None:
    loop, config = begun(tmp_path, monkeypatch, MODELS[name])
    calls: list[Tensor] = []
    kinds: set[torch.dtype] = set()
    attend = kernel.varlen_attn

    def counted(query: Tensor, *rest: Any, **named: Any) -> Any:
        calls.append(query)
        return attend(query, *rest, **named)

    monkeypatch.setattr(kernel, "varlen_attn", counted)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        as_on_a_gpu(loop, mode, config, fp16=fp16)
        for layer in (module for module in loop.learner.model.modules() if isinstance(module, nn.RNNBase)):
            layer.register_forward_hook(lambda _, given, states: kinds.add(states[0].dtype))
        layouts = [False, True] if loop.learner.model.reads_packed else [False]
        for packed in layouts:
            loop.feed.packed = packed
            for _ in range(UPDATES):
                loop.next_update()
            assert bool(calls) == packed
        assert len(loop.unread) == loop.progress.step == UPDATES * len(layouts)
        assert fp16 or kinds <= {torch.float32}  # cuDNN would make fp16 of bf16, without a loss scale
        assert bool(kinds) == (name in WHOLE_LAYERS)
        assert {query.dtype for query in calls} <= {torch.float16 if fp16 else torch.bfloat16}
        with pytest.raises(DataDependentOutputException):
            loop.read()  # so it would have been seen


def test_so_does_one_of_a_text_on_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, config = begun(tmp_path, monkeypatch, MODELS["transformer"])
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        as_on_a_gpu(loop, mode, config, fp16=False)
        loop.feed = Feed(loop.feed.plan, CPU, True, 0, 1)
        assert loop.feed.text is None
        for _ in range(UPDATES):
            loop.next_update()
        assert len(loop.unread) == UPDATES

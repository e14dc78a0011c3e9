"""The compiled model: it is one graph, it fails softly, and a killed process leaves nothing to stumble over."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend
from torch._functorch.compilers import nop

from tests.test_loss import PAIRS, batch
from tests.test_packed import CPU, model
from tests.tiny import in_child, tiny_config, tiny_corpus, tiny_plan
from translate.config import ModelConfig
from translate.device import Machine
from translate.models import build_model
from translate.models.seq2seq import Seq2Seq, Tokens
from translate.run import RunDirectory
from translate.stages import training
from translate.text.batches import BatchPlan, Turn
from translate.training.checkpoint import Learner
from translate.training.compiled import IN_USE, VARIABLES, Compiled, kernels_in
from translate.training.loss import Objective, TensorBatch
from translate.training.micro_batches import Trial
from translate.training.progress import Progress


def test_the_packed_transformer_is_one_graph_for_all_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that broke would send the host to work between kernels."""
    torch._dynamo.reset()  # of what other tests compiled
    seq2seq, seen, graphs = model().train(), [], []

    def count(graph: torch.fx.GraphModule, _: Any) -> Any:
        seen.append(graph)
        return graph

    compiler = torch.compile
    chosen: dict[str, Any] = {"backend": count, "fullgraph": True}
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: compiler(function, dynamic=dynamic, **chosen))
    whole = Compiled(seq2seq)
    for repeats in (1, 30, 90, 200):  # in the first both sides are 256 long
        given = TensorBatch.of(batch(PAIRS * repeats), CPU, packed=True)
        features, _ = whole(given.src, given.tgt_in)
        expected, _ = seq2seq(given.src, given.tgt_in)
        torch.testing.assert_close(features, expected)
        graphs.append(len(seen))
    assert 1 <= graphs[0] == graphs[-1]


def test_the_objective_uses_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def compiled(seq2seq: Seq2Seq, dynamic: bool) -> Any:
        assert dynamic

        def call(src: Tokens, tgt_in: Tokens) -> Any:
            calls.append("compiled")
            return seq2seq(src, tgt_in)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    seq2seq, given = model(), TensorBatch.of(batch(PAIRS), CPU, packed=True)
    plain = Objective(seq2seq, 0.1).eval()(given)[0]
    objective = Objective(seq2seq, 0.1, compiled=True).eval()
    assert objective(given)[0].item() == plain.item()
    assert calls == ["compiled"]
    assert [name for name, _ in objective.named_parameters()] == [f"model.{n}" for n, _ in seq2seq.named_parameters()]


@pytest.mark.parametrize("kind", ["transformer", "conv"])
def test_coverage_goes_from_one_position_to_the_next(kind: str) -> None:
    """Unrolled, it would be a graph for every length."""
    for coverage in (True, False):
        decoder = {"kind": kind, "width": 8, "attention": {"score": "additive", "coverage": coverage}}
        config = {"encoder": {"kind": kind, "width": 8}, "decoder": decoder}
        assert build_model(ModelConfig.model_validate(config), 11, 11).is_one_graph is not coverage


def recurrent() -> Seq2Seq:
    """Two layers in a loop that feeds back, with the way back by hand."""
    torch.manual_seed(4)
    part = {"kind": "rnn", "width": 8, "layers": 2, "dropout": 0.3}
    config = {"encoder": part, "decoder": {**part, "attention": {"score": "general"}}}
    return build_model(ModelConfig.model_validate(config), 11, 11).double().train()


def learnt(objective: Objective, given: TensorBatch) -> list[Tensor]:
    """The loss and all gradients."""
    objective.model.key_randomness(1, 1, 0)
    loss, _ = objective(given)
    return [loss, *torch.autograd.grad(loss, list(objective.model.parameters()))]


def test_of_a_recurrent_model_the_steps_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unrolled, its loop would be a graph for every length. A step is a few: the first and last differ."""
    counter, names = CompileCounterWithBackend("eager"), []
    compiler = torch.compile

    def counted(function: Callable[..., Any], dynamic: bool) -> Any:
        names.append(function.__name__)
        return compiler(function, dynamic=dynamic, backend=counter, fullgraph=True)

    monkeypatch.setattr(torch, "compile", counted)
    model, again = recurrent(), recurrent()
    assert not model.is_one_graph
    objective, plain = Objective(model, 0.1, compiled=True).train(), Objective(again, 0.1).train()
    assert names == ["_forth", "_back"]
    graphs = []
    for pairs in (PAIRS, PAIRS[:2], PAIRS * 5, [([5] * 30 + [2], [6] * 40)] * 3, PAIRS[1:] * 7):
        given = TensorBatch.of(batch(pairs), CPU)
        torch.testing.assert_close(learnt(objective, given), learnt(plain, given), rtol=0, atol=1e-10)
        graphs.append(counter.frame_count)
    assert 2 <= graphs[0] == graphs[-1] <= 6


def test_a_thread_of_autograd_compiles_in_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU backward passes run in one, and the compiler's settings are each thread's own."""
    torch._dynamo.reset()
    seen, compiler = [], torch.compile

    def count(graph: torch.fx.GraphModule, _: Any) -> Any:
        seen.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", lambda function, dynamic: compiler(function, dynamic=dynamic, backend=count))
    outer = Compiled(torch.outer)

    def work() -> None:
        for one, other in ((5, 5), (6, 7), (8, 3), (4, 4)):  # at first as long, by chance
            outer(torch.ones(one), torch.ones(other))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(seen) == 1


def test_what_runs_out_of_memory_stays_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    full = True

    def compiled(function: Callable[[int], int], dynamic: bool) -> Any:
        def call(given: int) -> int:
            if full:
                raise torch.OutOfMemoryError("no room")
            return -function(given)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    call = Compiled(lambda given: given + 1)
    with pytest.raises(torch.OutOfMemoryError):
        call(1)
    full = False
    assert call(1) == -2


def test_what_cannot_be_compiled_runs_as_it_stands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[str] = []

    def broken(*_: object) -> None:
        tried.append("compiled")
        raise RuntimeError("no compiler here\nand a long story")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    seq2seq, given = model().eval(), TensorBatch.of(batch(PAIRS), CPU)
    compiled = Compiled(seq2seq)
    for _ in range(3):
        assert torch.equal(compiled(given.src, given.tgt_in)[0], seq2seq(given.src, given.tgt_in)[0])
    assert tried == ["compiled"]
    told = capsys.readouterr().err
    assert told == ("warning: torch.compile failed (RuntimeError: no compiler here); training goes on without it\n")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> BatchPlan:
    return tiny_plan(tmp_path_factory.mktemp("text"))


@pytest.mark.parametrize("works", [True, False])
def test_a_backward_pass_that_cannot_be_compiled_is_found_out_before_it_is_needed(
    works: bool, plan: BatchPlan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With lengths of all kinds it is compiled when it is first gone through, long after the forward pass."""

    def kernels(graph: torch.fx.GraphModule, given: Any) -> Any:
        tried.append("back")
        if not works:
            raise RuntimeError("no such kernel\nand a long story")
        return nop(graph, given)

    tried: list[str] = []
    compiler, backend = torch.compile, aot_autograd(fw_compiler=nop, bw_compiler=kernels)
    monkeypatch.setattr(
        torch, "compile", lambda function, dynamic: compiler(function, dynamic=dynamic, backend=backend)
    )
    torch._dynamo.reset()
    part = {"kind": "transformer", "layers": 1, "width": 8, "heads": 2, "feed_forward": 16, "dropout": 0.0}
    config = ModelConfig.model_validate({"encoder": part, "decoder": part})
    seq2seq = build_model(config, 60, 60)
    objective, optimizer = Objective(seq2seq, 0.1, compiled=True), torch.optim.AdamW(seq2seq.parameters())
    learner = Learner(seq2seq, optimizer, None, None, Progress(), None)  # type: ignore[arg-type] # nobody reads here
    trial = Trial(learner, objective, Machine("cpu", "fp32", 1, "highest"))
    trial.prove(plan)
    assert tried
    told = capsys.readouterr().err.split("\n")[-2:]
    reason = "RuntimeError: no such kernel"
    assert works or told == [f"warning: torch.compile failed ({reason}); training goes on without it", ""]
    assert all(parameter.grad is None for parameter in seq2seq.parameters())
    tried.clear()
    for _, arrays in plan.update(Turn(), 50).parts:
        objective(TensorBatch.of(arrays, CPU))[0].backward()
    assert works or not tried


def test_the_model_itself_may_still_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("too long")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    seq2seq, given = model().eval(), TensorBatch.of(batch(PAIRS), CPU)
    monkeypatch.setattr(seq2seq, "forward", broken)
    with pytest.raises(ValueError, match="too long"):
        Compiled(seq2seq)(given.src, given.tgt_in)


def test_a_folder_that_a_killed_process_left_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:  # torch sets them itself where it has compiled before
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "kernels"

    def work(end: bool) -> None:
        with kernels_in(folder):
            place = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
            place.mkdir(exist_ok=True)
            (place / "kernel.so").write_text("half")
            if end:
                os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(lambda: work(end=True), tmp_path / "log") == -signal.SIGKILL
    assert (folder / IN_USE).exists()
    with kernels_in(folder):
        assert not (folder / "inductor").exists()
    assert in_child(lambda: work(end=False), tmp_path / "log") == 0
    with kernels_in(folder):
        assert (folder / "inductor" / "kernel.so").exists()  # left in order, so used again
    assert not (folder / IN_USE).exists()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ


def test_kernels_have_their_place_before_anything_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What compiles first would choose a place that all runs of the machine share."""

    class Built(Exception):
        """The model is about to be made, and compiled."""

    def build(*_: Any, **__: Any) -> None:
        raise Built(os.environ["TORCHINDUCTOR_CACHE_DIR"])

    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    machine = Machine("cuda", "fp32", 1, "highest")
    monkeypatch.setattr(training, "resolve_for_training", lambda *_: machine)
    monkeypatch.setattr(training, "build_learner", build)
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(Built, match=f"{run.compiled}/0/inductor"):
        training.train(tiny_config(tiny_corpus(tmp_path / "corpus")), run)


def test_a_place_that_was_chosen_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "mine")
    with kernels_in(tmp_path / "kernels"):
        assert os.environ["TRITON_CACHE_DIR"] == "mine"
    assert not (tmp_path / "kernels").exists()

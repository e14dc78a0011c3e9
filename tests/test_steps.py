"""inspect steps: every number of the JSON, and every printed one, is computed again from the others."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import tiny_config, tiny_corpus
from tests.worked import CHOICES, SRC, TGT, chosen_step, loaded_model, worked_out
from translate.__main__ import main
from translate.config import Config, ConvDecoderConfig, RnnDecoderConfig, RnnEncoderConfig, TransformerDecoderConfig
from translate.decoding.translator import padded
from translate.errors import DataError, UsageError
from translate.models.seq2seq import Record
from translate.report.blackboard.numbers import Worked, rounded
from translate.report.blackboard.writing import board
from translate.run import RunDirectory
from translate.stages.inspected_pair import Pair
from translate.stages.inspection import inspect_attention
from translate.stages.training import train
from translate.stages.worked_steps import inspect_steps, work_out
from translate.text.tokenizer import BOS, EOS
from translate.training.checkpoint import LoadedModel

Numbers = dict[str, Any]
Vector = list[float]


# --- computed again, with loops


def dot(left: Vector, right: Vector) -> float:
    return math.fsum(a * b for a, b in zip(left, right, strict=True))


def times(matrix: list[Vector], vector: Vector) -> Vector:
    return [dot(row, vector) for row in matrix]


def plus(*vectors: Vector) -> Vector:
    return [math.fsum(each) for each in zip(*vectors, strict=True)]


def terms_by_hand(score: Numbers, key: Vector, covered: float) -> Vector:
    """What the features contribute to the score of one key, or to each feature's score of it."""
    kind, q, p = score["kind"], score["query"], score["parameters"]
    moved = [covered * w for w in p.get("w_c", [0.0] * len(q))]
    match kind:
        case "dot" | "location":
            return [a * (b + c) for a, b, c in zip(q, key, moved, strict=True)]
        case "scaled_dot":
            return [a * (b / math.sqrt(len(q)) + c) for a, b, c in zip(q, key, moved, strict=True)]
        case "general" | "activated_general":
            return [a * (b + c) for a, b, c in zip(q, times(p["W"], key), moved, strict=True)]
        case "biased_general":
            asked = plus(times(p["W"], q), p["b"])
            return [a * (b + c) for a, b, c in zip(asked, key, moved, strict=True)]
        case "cosine":
            sharpness = math.log1p(math.exp(dot(p["w"], q) + p["b"][0]))
            length_q, length_m = (math.sqrt(dot(x, x)) for x in (q, key))
            return [sharpness * a / length_q * (b / length_m + c) for a, b, c in zip(q, key, moved, strict=True)]
        case "additive":
            inside = plus(times(p["W"], q), times(p["U"], key), p["b"], moved)
        case _:
            assert kind == "concat"
            inside = plus(times(p["W"], [*q, *key]), moved)
    inner = [math.tanh(x) for x in inside]
    return times(p["v"], inner) if score["features"] == "multi_dimensional" else [dot(p["v"], inner)]


def scores_by_hand(score: Numbers) -> list[Any]:
    several, found = score["features"] == "multi_dimensional", []
    for s, key in enumerate(score["keys"]):
        terms = terms_by_hand(score, key, score["covered"][s] if score["covered"] else 0.0)
        each = terms if several else [math.fsum(terms)]
        if score["kind"] == "activated_general":
            each = [math.tanh(x + b) for x, b in zip(each, score["parameters"]["b"], strict=True)]
        found.append(each if several else each[0])
    return found


def seen_by_hand(numbers: Numbers) -> list[bool]:
    scope, length = numbers["scope"], len(numbers["src"])
    match scope["kind"]:
        case "global":
            return [True] * length
        case "local_m":
            centre = float(min(numbers["step"] - 1, length - 1))
        case _:
            inside = [math.tanh(x) for x in times(scope["parameters"]["W"], numbers["score"]["query"])]
            assert scope["pushed"] == pytest.approx(dot(scope["parameters"]["v"], inside), abs=1e-5)
            centre = length / (1 + math.exp(-scope["pushed"]))
            bells = [math.exp(-((s - centre) ** 2) / (2 * (scope["window"] / 2) ** 2)) for s in range(length)]
            assert scope["gaussian"] == pytest.approx(bells, abs=1e-5)
    assert scope["centre"] == pytest.approx(centre, abs=1e-5)
    return [abs(s - scope["centre"]) <= scope["window"] for s in range(length)]


def normalized_by_hand(scores: Vector, seen: list[bool], normalizer: str) -> Vector:
    among = [score for score, is_seen in zip(scores, seen, strict=True) if is_seen]
    if normalizer == "softmax":
        total = math.fsum(math.exp(score) for score in among)
        return [math.exp(score) / total if is_seen else 0.0 for score, is_seen in zip(scores, seen, strict=True)]
    # sparsemax: the one threshold above which the scores add up to 1, by bisection
    low, high = min(among) - 1, max(among)
    for _ in range(200):
        middle = (low + high) / 2
        too_low = math.fsum(max(score - middle, 0.0) for score in among) > 1
        low, high = (middle, high) if too_low else (low, middle)
    return [max(score - low, 0.0) if is_seen else 0.0 for score, is_seen in zip(scores, seen, strict=True)]


def columns(rows: list[Any]) -> list[Vector]:
    """Numbers by key -> by feature; one column where there is one number a key."""
    return [list(column) for column in zip(*rows, strict=True)] if isinstance(rows[0], list) else [rows]


def check_again(numbers: Numbers) -> None:
    """Every number that is computed from others, from the others."""
    score, scope = numbers["score"], numbers["scope"]
    found = scores_by_hand(score)
    for mine, theirs in zip(columns(found), columns(score["scores"]), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)
    seen = seen_by_hand(numbers)
    assert scope["seen"] == seen
    several = score["features"] == "multi_dimensional"
    for scores, shares, weights in zip(
        *(columns(x) for x in (score["scores"], numbers["shares"], numbers["weights"])), strict=True
    ):
        assert shares == pytest.approx(normalized_by_hand(scores, seen, numbers["normalizer"]), abs=1e-5)
        expected = [a * g for a, g in zip(shares, scope.get("gaussian", [1.0] * len(seen)), strict=True)]
        if numbers["selection"] != "soft":
            best = expected.index(max(expected))
            expected = [float(s == best) for s in range(len(expected))]
        assert weights == pytest.approx(expected, abs=1e-5)
    for s, (value, product) in enumerate(zip(numbers["values"], numbers["products"], strict=True)):
        factors = numbers["weights"][s] if several else [numbers["weights"][s]] * len(value)
        assert product == pytest.approx([a * b for a, b in zip(factors, value, strict=True)], abs=1e-5)
    assert numbers["context"] == pytest.approx(plus(*numbers["products"]), abs=1e-5)
    check_what_follows(numbers)


def check_what_follows(numbers: Numbers) -> None:
    """From the context to the probability."""
    attended, feature, output = numbers["context"], numbers["feature"], numbers["output"]
    if (joined := numbers["joined"]) is not None:
        assert joined["contexts"][numbers["head"] - 1] == pytest.approx(attended, abs=1e-5)
        together = [x for context in joined["contexts"] for x in context]
        attended = plus(times(joined["W"], together), joined["b"])
        assert joined["attended"] == pytest.approx(attended, abs=1e-5)
    if "W" in feature:
        expected = [math.tanh(x) for x in times(feature["W"], [*attended, *feature["state"]])]
        assert feature["vector"] == pytest.approx(expected, abs=1e-5)
    assert output["logit"] == pytest.approx(dot(output["row"], feature["vector"]) + output["bias"], abs=1e-5)
    assert output["logit"] == output["logits"][output["id"]]
    assert output["log_sum"] == pytest.approx(math.log(math.fsum(map(math.exp, output["logits"]))), abs=1e-5)
    assert output["probability"] == pytest.approx(math.exp(output["logit"] - output["log_sum"]), abs=1e-5)
    for candidate in output["candidates"]:
        assert candidate["logit"] == output["logits"][candidate["id"]]
        assert candidate["probability"] == pytest.approx(math.exp(candidate["logit"] - output["log_sum"]), abs=1e-5)
    assert output["word"] in [candidate["word"] for candidate in output["candidates"]]


def check_against_the_model(worked: Worked, loaded: LoadedModel) -> None:
    """Weights and probability are those of teacher forcing."""
    record: Record = {}
    cpu = torch.device("cpu")
    with torch.no_grad():
        features, _ = loaded.model(padded([SRC], cpu), padded([[BOS, *TGT]], cpu), record)
        log_probs = loaded.model.project(features)[0, worked.step - 1].log_softmax(-1)
    path = f"decoder.layers.{worked.layer - 1}.cross_attention"
    recorded = record.get(path, record.get("decoder.attention", record["alignment"][:, None]))
    weights = worked.weights.mean(1) if worked.score.per_feature else worked.weights
    torch.testing.assert_close(
        torch.from_numpy(weights), recorded[0, worked.head - 1, worked.step - 1].double(), atol=1e-9, rtol=0
    )
    word = [*TGT, EOS][worked.step - 1]
    assert worked.output.probability(word) == pytest.approx(log_probs[word].exp().item(), abs=1e-9)


@pytest.mark.parametrize("name", CHOICES)
def test_every_number_follows_from_the_others(name: str) -> None:
    """For a set of attentions that covers every pair of choices; the last head, after steps that coverage remembers."""
    worked, loaded, choice = chosen_step(name)
    numbers = json.loads(board(worked).show("json"))
    assert numbers["score"]["kind"] == choice["score"]
    assert (numbers["score"]["covered"] is not None) == choice["coverage"]
    check_again(numbers)
    check_against_the_model(worked, loaded)


@pytest.mark.parametrize("head", [1, 2])
@pytest.mark.parametrize("layer", [1, 2, None])
@pytest.mark.parametrize("step", [1, 4])
def test_layers_heads_and_steps_of_the_fast_transformer(layer: int | None, head: int, step: int) -> None:
    decoder = TransformerDecoderConfig(layers=2, width=8, heads=2, feed_forward=6)
    worked, loaded = worked_out(RnnEncoderConfig(width=6), decoder, layer, head, step)
    numbers = json.loads(board(worked).show("json"))
    assert (numbers["layer"], numbers["head"], numbers["step"]) == (layer or 2, head, step)
    assert numbers["reads"] == ["▁b", "▁i", "▁e", "▁g"][step - 1]
    assert numbers["output"]["word"] == ["▁i", "▁e", "▁g", "▁c"][step - 1]
    check_again(numbers)
    check_against_the_model(worked, loaded)


def test_one_head_of_the_fast_transformer() -> None:
    decoder = TransformerDecoderConfig(layers=1, width=8, heads=1, feed_forward=6)
    worked, loaded = worked_out(RnnEncoderConfig(width=6), decoder)
    check_again(json.loads(board(worked).show("json")))
    check_against_the_model(worked, loaded)


def test_numbers_keep_nine_digits() -> None:
    assert rounded(1 / 3) == 0.333333333
    assert rounded(np.array([[1e-20, 123456789.25]])) == [[1e-20, 123456789.0]]


# --- the stage and the command


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunDirectory]:
    """A run with the score of the given name, trained for two steps when first asked for."""
    place = tmp_path_factory.mktemp("steps")
    corpus = tiny_corpus(place / "corpus")

    def trained(score: str) -> RunDirectory:
        run = RunDirectory(place / score)
        if not run.root.exists():
            config = tiny_config(corpus, max_steps=2, validate_every=2, save_every=2, average=0, ema=0.0)
            settings = config.model_dump()
            decoder = {"kind": "rnn", "width": 16, "attention": {"score": score}}
            settings["model"] = {"encoder": {"kind": "rnn", "width": 16}, "decoder": decoder, "tie": "decoder"}
            train(Config.model_validate(settings), run)
        return run

    return trained


SENTENCE = "나는 책을 읽는다"


def test_a_trained_model_on_its_own_translation_and_a_given_one(runs: Callable[[str], RunDirectory]) -> None:
    run = runs("additive")
    own = inspect_steps(run, SENTENCE)
    assert own.checkpoint == 2
    assert own.reads == "<s>"
    given = inspect_steps(run, SENTENCE, "I read book", step=2)
    assert given.translation == "I read book"
    assert "".join(given.tgt) == "▁I▁read▁book</s>"
    for worked in (own, given):
        check_again(json.loads(board(worked).show("json")))


def test_weights_are_those_of_inspect_attention(runs: Callable[[str], RunDirectory]) -> None:
    run = runs("additive")
    report = inspect_attention(run, SENTENCE, "I read book")
    assert report.weights is not None
    for step in (1, len(report.tgt)):
        worked = inspect_steps(run, SENTENCE, "I read book", step=step)
        assert worked.weights.tolist() == pytest.approx(report.weights[step - 1].tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"layer": 0}, r"--layer 0: expected 1 to 2 \(how often a step looks at the source\)"),
        ({"layer": 3}, "--layer 3: expected 1 to 2"),
        ({"head": 2}, r"--head 2: expected 1 \(the heads of the attention\)"),
        ({"head": -1}, "--head -1: expected 1 "),
        ({"step": 0}, "--step 0: expected 1 to 4"),
        ({"step": 5}, r"--step 5: expected 1 to 4 \(the pieces of the translation, </s> included: its translation\)"),
    ],
)
def test_numbers_that_are_not_there(numbers: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        worked_out(RnnEncoderConfig(width=6), ConvDecoderConfig(layers=2, width=8), **numbers)


def test_a_model_without_finite_numbers() -> None:
    loaded = loaded_model(RnnEncoderConfig(width=6), RnnDecoderConfig(width=8))
    loaded.model.output.weight.data[3, 2] = math.nan
    with pytest.raises(DataError, match=r"no finite numbers; try decode\.weights: last"):
        work_out(loaded, Pair("a sentence", "its translation", SRC, TGT), None, 1, 1)


@pytest.mark.parametrize(
    ("score", "sentence", "target", "message"),
    [
        ("none", SENTENCE, None, "model.decoder.attention.score is none"),
        ("additive", " ", None, "the sentence is blank"),
        ("additive", SENTENCE, "", "the target is blank"),
    ],
)
def test_refusals(
    runs: Callable[[str], RunDirectory], score: str, sentence: str, target: str | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        inspect_steps(runs(score), sentence, target)


def test_the_command(runs: Callable[[str], RunDirectory], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["inspect", "steps", "--run", str(runs("additive").root), SENTENCE, "--target", "I read"]
    assert main([*arguments, "--step", "2", "--json"]) == 0
    check_again(json.loads(capsys.readouterr().out))
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{SENTENCE} → I read\n\nStep 1 of ")
    assert "e = v · tanh(W q + U m + b)" in text
    assert main([*arguments, "--markdown"]) == 0
    assert capsys.readouterr().out.startswith(f"# {SENTENCE} → I read\n\n## Step 1 of ")
    assert main([*arguments, "--layer", "2"]) == 64
    assert capsys.readouterr().err.startswith("error: --layer 2: expected 1 (")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--example", "--json", "--markdown"], "--json and --markdown exclude each other"),
        (["--example", "문장"], "--example has its own sentence and needs no model"),
        (["--example", "--run", "x"], "--example has its own sentence"),
        (["--run", "x"], "SENTENCE is missing (or --example"),
        (["문장"], "--run DIR is missing"),
        (["문장", "--step", "two"], "Invalid value for '--step'"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "steps", *arguments]) == 64
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


# --- the example


def test_the_example_has_the_figures_of_the_lecture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "steps", "--example", "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["src"] == ["나", "는", "학생", "이다"]
    assert numbers["tgt"][numbers["step"] - 1] == "student"
    assert numbers["weights"] == [0.1, 0.055, 0.8, 0.045]
    assert numbers["values"] == [[1, 0, 0, 1], [1, 0, 0, 2], [1, 1, 2, 0], [1, 1, 0, 0]]
    assert numbers["context"] == [1.0, 0.845, 1.6, 0.21]
    for weight, value, product in zip(numbers["weights"], numbers["values"], numbers["products"], strict=True):
        assert product == pytest.approx([weight * x for x in value], abs=1e-12)
    assert plus(*numbers["products"]) == pytest.approx(numbers["context"], abs=1e-12)


def test_the_example_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "steps", "--example"]) == 0
    text = capsys.readouterr().out
    assert (
        "c = 0.1 (1 0 0 1) + 0.055 (1 0 0 2) + 0.8 (1 1 2 0) + 0.045 (1 1 0 0)\n    = (1.0, 0.845, 1.6, 0.21)" in text
    )
    assert re.search(r"학생 +0\.8 +1 +1 +2 +0 +0\.8 +0\.8 +1\.6 +0\.0\n", text)
    assert re.search(r"c +1\.0 +1\.0 +0\.845 +1\.6 +0\.21\n", text)
    assert main(["inspect", "steps", "--example", "--markdown"]) == 0
    assert "| 학생 | 0.8 | 1 | 1 | 2 | 0 | 0.8 | 0.8 | 1.6 | 0.0 |\n" in capsys.readouterr().out

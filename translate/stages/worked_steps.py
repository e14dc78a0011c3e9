"""translate inspect steps: the attention of one output step, worked out from the query to the word's probability."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from translate.config import Config
from translate.config.reader import load_config
from translate.decoding.translator import padded
from translate.errors import DataError, UsageError
from translate.models.conv import ConvDecoder, MultiStep
from translate.models.multi_head import AnyCrossAttention
from translate.models.rnn import RnnDecoder
from translate.models.seq2seq import Decoder, Seq2Seq
from translate.models.transformer import DecoderLayer, TransformerDecoder
from translate.report.blackboard.numbers import Worked
from translate.run import RunDirectory
from translate.stages.inspected_pair import Inspected, Pair, refuse_without_attention
from translate.stages.step_numbers import Call, Looking, Place, Seen, feature_of, output_of
from translate.text.tokenizer import BOS, EOS
from translate.training.checkpoint import LoadedModel


def inspect_steps(
    run: RunDirectory,
    sentence: str,
    target: str | None = None,
    layer: int | None = None,
    head: int = 1,
    step: int = 1,
    config: Config | None = None,
) -> Worked:
    """Work out how output step `step` looks at a sentence, in one head of one layer, by default the last.

    The translation is `target`, or the model's own. Numbers count from 1. The model computes in fp64 here, so that its
    numbers agree with what is computed from them. Raises UsageError for a layer, head or step that is not there, and
    DataError for a model without attention, for a blank text, and where the model gives no finite numbers.
    """
    inspected = Inspected.open(run, config or load_config(run.config_file, []))
    refuse_without_attention(inspected.loaded.config)
    return work_out(inspected.loaded, inspected.read(sentence, target), layer, head, step)


def work_out(loaded: LoadedModel, pair: Pair, layer: int | None, head: int, step: int) -> Worked:
    """`inspect_steps` of a model that is loaded, and computes on the CPU in fp64 from here on."""
    model, tokenizer = loaded.model.double().cpu(), loaded.tokenizer
    layers = _count_layers(model.decoder)
    layer = layers if layer is None else layer
    _require("layer", layer, layers, "how often a step looks at the source")
    place = _place(model.decoder, layer - 1)
    _require("head", head, place.attention.heads, "the heads of the attention")
    _require("step", step, len(pair.tgt_ids) + 1, f"the pieces of the translation, </s> included: {pair.translation}")
    seen = _run(model, place, pair, step - 1)
    worked = Worked(
        sentence=pair.sentence,
        translation=pair.translation,
        checkpoint=loaded.step,
        src=pair.src(tokenizer),
        tgt=pair.tgt(tokenizer),
        reads=pair.tgt_in(tokenizer)[step - 1],
        step=step,
        layer=layer,
        layers=layers,
        head=head,
        heads=place.attention.heads,
        **vars(Looking.of(place, seen, head - 1)),
        feature=feature_of(model.decoder, seen),
        output=output_of(loaded, seen, [*pair.tgt_ids, EOS][step - 1]),
    )
    worked.check()
    return worked


def _require(name: str, number: int, most: int, meaning: str) -> None:
    if not 1 <= number <= most:
        raise UsageError(f"--{name} {number}: expected {f'1 to {most}' if most > 1 else '1'} ({meaning})")


def _count_layers(decoder: Decoder) -> int:
    """How often a step looks at the source."""
    return len(decoder.layers) if isinstance(decoder, ConvDecoder | TransformerDecoder) else 1


def _place(decoder: Decoder, index: int) -> Place:
    match decoder:
        case RnnDecoder():
            return Place(decoder.attention, "")
        case ConvDecoder():
            across = decoder.across[index]
            assert isinstance(across, MultiStep)
            return Place(across.attention, f"{index}.cross.")
        case TransformerDecoder():
            decoder_layer = decoder.layers[index]
            assert isinstance(decoder_layer, DecoderLayer)
            cross = decoder_layer.cross_attention
            return Place(cross.attention if isinstance(cross, AnyCrossAttention) else cross, f"{index}.cross.")
    raise AssertionError(f"no attention known in {type(decoder).__name__}")


@torch.no_grad()
def _run(model: Seq2Seq, place: Place, pair: Pair, last: int) -> Seen:
    """Take the steps from 0 to `last`, and watch that one."""
    cpu = torch.device("cpu")
    memory = model.encoder(padded([pair.src_ids], cpu))
    tokens = [torch.tensor([[token]]) for token in (BOS, *pair.tgt_ids)]
    state = model.decoder.start(memory, len(tokens))
    for time in range(last):
        state = model.decoder.step(tokens[time], memory, state, time)[1]
    covered = state.beams.get(f"{place.prefix}covered")
    covered = None if covered is None else covered.clone()
    modules = dict(place.attention.named_children())
    if isinstance(model.decoder, RnnDecoder):
        modules["combine"] = model.decoder.combine
    with _watched(modules) as calls:
        feature, state = model.decoder.step(tokens[last], memory, state, last)
    logits = model.project(feature)
    if not bool(torch.isfinite(logits).all()):
        raise DataError("no attention to show: the model gave no finite numbers; try decode.weights: last")
    return Seen(last, memory, state, covered, calls, feature, logits)


@contextmanager
def _watched(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Call]]:
    """Note the last call of each module."""
    calls: dict[str, Call] = {}

    def note(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            calls[name] = Call(inputs, output)

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in modules.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()

"""Models: ids to features. `build_model` is the one way to make one."""

from torch import nn

from translate.config import (
    ConvDecoderConfig,
    ConvEncoderConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    RnnDecoderConfig,
    RnnEncoderConfig,
    TransformerDecoderConfig,
    TransformerEncoderConfig,
)
from translate.models.conv import ConvDecoder, ConvEncoder
from translate.models.rnn import RnnDecoder, RnnEncoder
from translate.models.seq2seq import Decoder, Encoder, Seq2Seq
from translate.models.transformer import TransformerDecoder, TransformerEncoder


def build_model(config: ModelConfig, src_size: int, tgt_size: int) -> Seq2Seq:
    """A fresh model for vocabularies of the given sizes, initialised from torch's default generator.

    The output layer has a bias if its matrix is its own, none if it is the target embedding's.
    """
    encoder = _build_encoder(config.encoder, src_size)
    decoder = _build_decoder(config.decoder, tgt_size, config.encoder.width)
    output = nn.Linear(decoder.width, tgt_size, bias=config.tie == "none")
    match config.tie:
        case "none":
            nn.init.normal_(output.weight, std=decoder.width**-0.5)
            nn.init.zeros_(output.bias)
        case "decoder":
            output.weight = decoder.embedding.weight
        case "all":
            assert src_size == tgt_size, "one matrix for both sides needs one vocabulary"
            encoder.embedding.weight = output.weight = decoder.embedding.weight
    return Seq2Seq(encoder, decoder, output)


def _build_encoder(config: EncoderConfig, vocabulary: int) -> Encoder:
    match config:
        case RnnEncoderConfig():
            return RnnEncoder(config, vocabulary)
        case ConvEncoderConfig():
            return ConvEncoder(config, vocabulary)
        case TransformerEncoderConfig():
            return TransformerEncoder(config, vocabulary)


def _build_decoder(config: DecoderConfig, vocabulary: int, memory_width: int) -> Decoder:
    match config:
        case RnnDecoderConfig():
            return RnnDecoder(config, vocabulary, memory_width)
        case ConvDecoderConfig():
            return ConvDecoder(config, vocabulary, memory_width)
        case TransformerDecoderConfig():
            return TransformerDecoder(config, vocabulary, memory_width)

"""Settings of the network: each kind of encoder and decoder, and how they are put together."""

from typing import Annotated, Literal

from pydantic import Field

from translate.config.section import Fraction, Layers, Section, Size, Width


class RnnEncoderConfig(Section):
    """A recurrent encoder."""

    kind: Literal["rnn"] = "rnn"
    """A recurrent encoder."""
    cell: Literal["lstm", "gru"] = "lstm"
    """The recurrent unit."""
    layers: Layers = 1
    """Number of stacked layers."""
    width: Width = 512
    """Width of the states; with `bidirectional`, half for each direction."""
    embedding: Width | None = None
    """Width of the word vectors; by default `width`."""
    bidirectional: bool = True
    """Read the sentence from both ends."""
    dropout: Fraction = 0.2
    """Dropout on word vectors and between layers."""


class TransformerEncoderConfig(Section):
    """A Transformer encoder."""

    kind: Literal["transformer"] = "transformer"
    """Self-attention layers."""
    layers: Layers = 3
    """Number of layers."""
    width: Width = 256
    """Width of the states."""
    heads: Width = 4
    """Attention heads; must divide `width`."""
    feed_forward: Width = 1024
    """Inner width of the position-wise network."""
    norm: Literal["pre", "post"] = "pre"
    """Layer norm before each sublayer with one more at the end, or after each residual as in the paper."""
    activation: Literal["relu", "gelu"] = "relu"
    """Non-linearity of the position-wise network."""
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    """How a position is told to the model. Sinusoids know no limit."""
    max_positions: Size = 1024
    """Learned positions only: the longest sequence, in pieces."""
    dropout: Fraction = 0.1
    """Dropout on embeddings plus positions and on each sublayer's output."""
    attention_dropout: Fraction = 0.0
    """Dropout on attention weights."""
    activation_dropout: Fraction = 0.0
    """Dropout inside the position-wise network."""


class AttentionConfig(Section):
    """How a recurrent decoder looks at the source."""

    score: Literal["none", "dot", "scaled_dot", "general", "additive"] = "general"
    """Score of a query against a key; `none` is the plain model with one fixed context vector."""


class RnnDecoderConfig(Section):
    """A recurrent decoder."""

    kind: Literal["rnn"] = "rnn"
    """A recurrent decoder."""
    cell: Literal["lstm", "gru"] = "lstm"
    """The recurrent unit."""
    layers: Layers = 1
    """Number of stacked layers."""
    width: Width = 512
    """Width of the states."""
    embedding: Width | None = None
    """Width of the word vectors; by default `width`."""
    input_feeding: bool = True
    """Give the attentional vector of one step to the next step's input; without attention there is none to give."""
    dropout: Fraction = 0.2
    """Dropout on word vectors, between layers and on the features."""
    attention: AttentionConfig = AttentionConfig()
    """How the decoder looks at the source."""


class TransformerDecoderConfig(TransformerEncoderConfig):
    """A Transformer decoder: masked self-attention, then attention to the source; settings as the encoder's."""


EncoderConfig = Annotated[RnnEncoderConfig | TransformerEncoderConfig, Field(discriminator="kind")]
DecoderConfig = Annotated[RnnDecoderConfig | TransformerDecoderConfig, Field(discriminator="kind")]


class ModelConfig(Section):
    """Any encoder with any decoder."""

    encoder: EncoderConfig = TransformerEncoderConfig()
    """Reads the source; its settings depend on `kind`."""
    decoder: DecoderConfig = TransformerDecoderConfig()
    """Writes the target; its settings depend on `kind`."""
    tie: Literal["all", "decoder", "none"] = "all"
    """Share one matrix between source embedding, target embedding and output (`all`, needs a joint tokenizer),
    between target embedding and output (`decoder`), or nothing."""


def embedding_width(part: RnnEncoderConfig | TransformerEncoderConfig | RnnDecoderConfig) -> int:
    """Width of the word vectors of an encoder or decoder."""
    if isinstance(part, TransformerEncoderConfig) or part.embedding is None:
        return part.width
    return part.embedding

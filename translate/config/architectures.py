"""Settings of the network: each kind of encoder and decoder, and how they are put together."""

from typing import Annotated, Literal

from pydantic import Field

from translate.config.section import Fraction, Layers, Rate, Section, Size, Weight, Width

ScoreName = Literal[
    "none",
    "dot",
    "scaled_dot",
    "general",
    "biased_general",
    "activated_general",
    "additive",
    "concat",
    "location",
    "cosine",
]
PositionsName = Literal["sinusoidal", "learned", "none"]


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
    positions: PositionsName = "sinusoidal"
    """How a position is told to the model. Sinusoids know no limit; with `none` self-attention sees a bag of words."""
    max_positions: Size = 1024
    """Learned positions only: the longest sequence, in pieces."""
    dropout: Fraction = 0.1
    """Dropout on embeddings plus positions and on each sublayer's output."""
    attention_dropout: Fraction = 0.0
    """Dropout on attention weights."""
    activation_dropout: Fraction = 0.0
    """Dropout inside the position-wise network."""


class ConvEncoderConfig(Section):
    """A convolutional encoder."""

    kind: Literal["conv"] = "conv"
    """Gated convolutions."""
    layers: Layers = 4
    """Number of convolutions, each with a gated linear unit."""
    width: Width = 256
    """Width of the states."""
    embedding: Width | None = None
    """Width of the word vectors; by default `width`."""
    kernel: Size = 3
    """Pieces that one convolution sees; an odd number, so that a piece stands in the middle."""
    positions: PositionsName = "sinusoidal"
    """How a position is told to the model. Sinusoids know no limit; convolutions know the order without them."""
    max_positions: Size = 1024
    """Learned positions only: the longest sequence, in pieces."""
    dropout: Fraction = 0.2
    """Dropout on embeddings and on what enters each convolution."""


class AttentionConfig(Section):
    """How a decoder looks at the source."""

    score: ScoreName = "general"
    """Score of a query against a key; `none` is the plain model with one fixed context vector."""
    scope: Literal["global", "local_m", "local_p"] = "global"
    """Look at the whole sentence, at a window that moves on by one a step, or at a window around a predicted centre."""
    window: Size = 10
    """Local scopes only: how many pieces to either side of the centre are seen."""
    selection: Literal["soft", "hard", "gumbel"] = "soft"
    """Average under the weights, look at one state sampled from them, or at one by the straight-through Gumbel form."""
    entropy_weight: Weight = 0.1
    """Hard selection only: weight of the entropy term, which keeps the choice from settling too early."""
    soft_share: Fraction = 0.5
    """Hard selection only: how often training averages all the same, which steadies it (Xu et al. 2015)."""
    temperature: Rate = 1.0
    """Gumbel selection only: the lower, the nearer the gradient's softmax is to a choice."""
    normalizer: Literal["softmax", "sparsemax"] = "softmax"
    """What turns scores into weights; sparsemax gives exact zeros."""
    features: Literal["scalar", "multi_dimensional"] = "scalar"
    """One score for each key, or one for each feature of each key."""
    coverage: bool = False
    """Let the weights that a key has had so far enter its score, and penalise looking at it again."""
    coverage_weight: Weight = 0.1
    """Coverage only: weight of the penalty in the loss. See et al. take 1, once a model has learnt to translate; from
    the start that keeps it from learning."""
    max_positions: Size = 1024
    """Location score only: the longest source, in pieces."""


class RnnAttentionConfig(AttentionConfig):
    """How a recurrent decoder looks at the source."""

    heads: Width = 1
    """Attention heads; must divide the decoder's `width`."""
    placement: Literal["after", "before"] = "after"
    """Attend with the state after the step (Luong), or with the state before it, the context then entering the step
    (Bahdanau)."""


class ConvAttentionConfig(AttentionConfig):
    """How each layer of a convolutional decoder looks at the source."""

    score: ScoreName = "scaled_dot"
    """Score of a query against a key; `none` is the plain model with one fixed context vector."""
    heads: Width = 1
    """Attention heads; must divide the decoder's `width`."""


class CrossAttentionConfig(AttentionConfig):
    """How each layer of a Transformer decoder looks at the source; its heads are the decoder's."""

    score: ScoreName = "scaled_dot"
    """Score of a query against a key; without attention a Transformer decoder would know nothing of the source."""


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
    """Give the attentional vector of one step to the next step's input; without attention there is none to give, and
    with attention placed before the step the context enters in its place."""
    dropout: Fraction = 0.2
    """Dropout on word vectors, between layers and on the features."""
    attention: RnnAttentionConfig = RnnAttentionConfig()
    """How the decoder looks at the source."""


class TransformerDecoderConfig(TransformerEncoderConfig):
    """A Transformer decoder: masked self-attention, then attention to the source; settings as the encoder's."""

    attention: CrossAttentionConfig = CrossAttentionConfig()
    """How each layer looks at the source."""


class ConvDecoderConfig(ConvEncoderConfig):
    """A convolutional decoder: causal convolutions, each followed by attention to the source."""

    kernel: Size = 3
    """Pieces that one convolution sees: the present one and those before it."""
    attention: ConvAttentionConfig = ConvAttentionConfig()
    """How each layer looks at the source."""


EncoderConfig = Annotated[RnnEncoderConfig | ConvEncoderConfig | TransformerEncoderConfig, Field(discriminator="kind")]
DecoderConfig = Annotated[RnnDecoderConfig | ConvDecoderConfig | TransformerDecoderConfig, Field(discriminator="kind")]


class ModelConfig(Section):
    """Any encoder with any decoder."""

    encoder: EncoderConfig = TransformerEncoderConfig()
    """Reads the source; its settings depend on `kind`."""
    decoder: DecoderConfig = TransformerDecoderConfig()
    """Writes the target; its settings depend on `kind`."""
    tie: Literal["all", "decoder", "none"] = "all"
    """Share one matrix between source embedding, target embedding and output (`all`, needs a joint tokenizer),
    between target embedding and output (`decoder`), or nothing."""


def embedding_width(part: EncoderConfig | DecoderConfig) -> int:
    """Width of the word vectors of an encoder or decoder."""
    if isinstance(part, TransformerEncoderConfig) or part.embedding is None:
        return part.width
    return part.embedding

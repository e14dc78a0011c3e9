"""Every setting of a run: its name, type, default and meaning, each written once.

`config/reader.py` makes these objects from YAML files and `--set`; `config/rules.py` knows which combinations make
no sense and what may change when a run goes on. The rest of the package receives its own section and nothing else.
"""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Auto = Literal["auto"]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Size = Annotated[int, Field(ge=1, lt=2**53)]
Layers = Annotated[int, Field(ge=1, le=1000)]
Width = Annotated[int, Field(ge=1, le=65536)]
Threads = Annotated[int, Field(ge=1, le=1024)]
Rate = Annotated[float, Field(gt=0.0)]

FILE: Final = "a file or directory; a relative name starts from where it is written"
FileName = Annotated[str, FILE]


class Section(BaseModel):
    """A group of settings: strict types, no unknown keys, immutable; field docstrings are the reference."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class CorpusConfig(Section):
    """One source of sentence pairs: either `src` and `tgt`, or one `file` that holds both sides."""

    src: FileName | None = None
    """Plain text file with the source sentences, one a line; may be gzip-compressed."""
    tgt: FileName | None = None
    """Plain text file with the target sentences, line by line the translations of `src`."""
    file: FileName | None = None
    """One file with both sides (TSV, JSON Lines, Parquet, Arrow), or a dataset's name for `format: hub`."""
    format: Literal["text", "tsv", "jsonl", "parquet", "arrow", "hub"] = "text"
    """How the pairs are stored; `text` means the pair of files `src` and `tgt`."""
    src_field: str | None = None
    """Column of the source: a name, or for TSV its number from 1. Dots reach into nested fields."""
    tgt_field: str | None = None
    """Column of the target, in the same form."""
    subset: str | None = None
    """Hub only: the dataset's configuration name."""
    split: str | None = None
    """Hub only: the dataset's split."""
    revision: str | None = None
    """Hub only: commit, tag or branch to load."""
    name: str | None = None
    """What reports call this corpus; by default its file name."""
    weight: Rate = 1.0
    """How often each pair is seen in an epoch: 2 is twice, 0.5 is half of the pairs, drawn anew each epoch."""


class CleaningConfig(Section):
    """Which training pairs are dropped; each drop is counted under its reason. Other splits are never cleaned."""

    max_length: Size = 256
    """Longest side kept, in tokenizer pieces."""
    max_ratio: Annotated[float, Field(ge=1.0)] = 9.0
    """Largest quotient of the two lengths in pieces; sides of up to ten pieces are not judged."""
    keep_duplicates: bool = False
    """Keep repeated pairs; false keeps the first of each."""
    keep_identical: bool = True
    """Keep pairs whose two sides are the same text."""


class DataConfig(Section):
    """The text of the run."""

    train: Annotated[list[CorpusConfig], Field(min_length=1)]
    """Corpora to learn from."""
    valid: Annotated[list[CorpusConfig], Field(min_length=1)]
    """Corpora that choose the best checkpoint and decide when to stop."""
    test: list[CorpusConfig] = []
    """Corpora for `translate eval`; each is scored by itself."""
    normalization: Literal["nfc", "nfkc", "none"] = "nfc"
    """Unicode form that text is brought to before the tokenizer sees it. References are never touched."""
    cleaning: CleaningConfig = CleaningConfig()
    """What to drop from the training text."""


class TokenizerConfig(Section):
    """SentencePiece: trained on the training text, or ready-made."""

    kind: Literal["unigram", "bpe"] = "unigram"
    """How pieces are learnt."""
    vocab_size: Annotated[int, Field(ge=8, le=1_000_000)] = 8000
    """Number of pieces (each side's, if not joint); made smaller, with a message, for a text too small for it."""
    joint: bool = True
    """One model for both languages, or one a side."""
    byte_fallback: bool = True
    """Spell characters outside the vocabulary as bytes instead of `<unk>`."""
    character_coverage: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the text's characters that the pieces must cover."""
    sampling: Fraction = 0.0
    """Draw other pieces each epoch: BPE dropout, or for unigram one minus the lattice's smoothing; 0 is off."""
    model: FileName | None = None
    """A ready SentencePiece model for both sides; nothing is trained."""
    src_model: FileName | None = None
    """A ready model for the source side; needs `tgt_model`."""
    tgt_model: FileName | None = None
    """A ready model for the target side; needs `src_model`."""


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


class TrainConfig(Section):
    """How the model learns, and when it saves, validates and stops."""

    lr: Rate = 1e-3
    """Peak learning rate; for the schedule `noam` the factor of the paper's formula."""
    schedule: Literal["constant", "inverse_sqrt", "noam", "cosine", "linear", "plateau"] = "inverse_sqrt"
    """Learning rate as a function of the step; `cosine` and `linear` end at `max_steps`."""
    warmup: Count = 1000
    """Updates over which the rate rises linearly from zero."""
    min_lr: Annotated[float, Field(ge=0.0)] = 0.0
    """The rate never falls below this after warm-up."""
    plateau_factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Schedule `plateau`: the rate is multiplied by this when validation stands still."""
    plateau_patience: Size = 2
    """Schedule `plateau`: validations without improvement before the rate falls."""
    label_smoothing: Fraction = 0.1
    """Probability mass given to all words alike."""
    beta1: Fraction = 0.9
    """AdamW: decay of the gradient's mean."""
    beta2: Fraction = 0.98
    """AdamW: decay of the squared gradient's mean."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """AdamW: decay of weight matrices, embeddings included; biases and norms are spared."""
    clip: Annotated[float, Field(ge=0.0)] = 1.0
    """Largest norm of the gradient; 0 is no limit."""
    update_tokens: Size = 4096
    """Real target tokens of one update; padding is not counted."""
    batch_tokens: Size | Auto = "auto"
    """Real target tokens that pass through the model at once; `auto` is the whole update."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of matrix products; weights and optimizer stay in fp32."""
    matmul: Literal["auto", "highest", "medium"] = "auto"
    """PyTorch's setting for fp32 matrix products on CPU; `auto` takes `medium` where it is faster and as exact."""
    threads: Threads | Auto = "auto"
    """CPU threads."""
    max_steps: Size | None = None
    """Stop after this many updates."""
    max_epochs: Size | None = None
    """Stop after this many passes over the training text."""
    max_minutes: Annotated[float, Field(gt=0.0)] | None = None
    """Stop after this much training time, interruptions not counted."""
    patience: Size | None = None
    """Stop after this many validations in a row without a better one."""
    validate_every: Size = 500
    """Updates between validations."""
    validate_sentences: Count = 1000
    """Sentences of the validation text that are translated for BLEU; 0 is loss only."""
    best: Literal["bleu", "loss"] = "bleu"
    """What makes a checkpoint the best one."""
    save_every: Size = 500
    """Updates between checkpoints."""
    save_minutes: Annotated[float, Field(gt=0.0)] = 10.0
    """Longest time between checkpoints."""
    keep_last: Size = 3
    """Newest checkpoints that are kept; the best is kept besides."""
    average: Count = 0
    """Checkpoints that `decode.weights: average` takes the mean of; needs as many in `keep_last`; 0 is off."""
    ema: Fraction = 0.0
    """Decay of a running average of the weights, kept for `decode.weights: ema`; 0 is off."""
    log_every: Size = 50
    """Updates between log lines."""
    tensorboard: bool = False
    """Write TensorBoard files as well; needs the `tensorboard` extra."""
    init_from: FileName | None = None
    """Run whose weights to start from; it must have the same tokenizer and model."""


class DecodeConfig(Section):
    """How translations are searched for."""

    beam: Size = 5
    """Hypotheses kept at each step; 1 is greedy search."""
    length_penalty: float = 1.0
    """Exponent of the length that a hypothesis' log-probability is divided by."""
    max_length: Size = 256
    """Most pieces of a translation; also limited to twice the source's length plus 20."""
    n_best: Size = 1
    """Translations given for each line; at most `beam`."""
    batch_size: Size = 64
    """Sentences searched at once."""
    weights: Literal["best", "last", "average", "ema"] = "best"
    """Which weights of the run to use."""


class EvaluateConfig(Section):
    """How translations are scored."""

    lowercase: bool = False
    """Score without regard to case."""
    tokenize: Literal["13a", "none", "intl", "zh", "char"] = "13a"
    """sacreBLEU's tokenizer for BLEU; `none` is for text that is tokenised already."""


class Config(Section):
    """A run, whole."""

    name: str | None = None
    """Name of the run's directory under `runs`; by default the config file's name."""
    seed: Count = 1
    """The source of all chance."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; `auto` takes a GPU if there is one."""
    data: DataConfig
    """The text."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """Text to pieces and back."""
    model: ModelConfig = ModelConfig()
    """The network."""
    train: TrainConfig = TrainConfig()
    """How it learns."""
    decode: DecodeConfig = DecodeConfig()
    """How it translates."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """How it is scored."""


def embedding_width(part: RnnEncoderConfig | TransformerEncoderConfig | RnnDecoderConfig) -> int:
    """Width of the word vectors of an encoder or decoder."""
    if isinstance(part, TransformerEncoderConfig) or part.embedding is None:
        return part.width
    return part.embedding

"""Every setting of a run: its name, type, default and meaning, each written once; `architectures.py` has the network's.

`config/reader.py` makes these objects from YAML files and `--set`; `config/rules.py` knows which combinations make
no sense and what may change when a run goes on. The rest of the package receives its own section and nothing else.
"""

from typing import Annotated, Literal

from pydantic import Field

from translate.config.architectures import ModelConfig
from translate.config.section import Auto, Count, FileName, Fraction, Rate, Section, Size, Threads


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
    test: list[CorpusConfig] = []  # noqa: RUF012 - pydantic copies it
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
    """One model for both languages, or one a side, worth a try for two that share no letters."""
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
    """Real target tokens that pass through the model at once; `auto` is the whole update, or as much as fits."""
    recompute: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, more time."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of matrix products; weights and optimizer stay in fp32. fp16 is for GPUs that have no bf16."""
    matmul: Literal["auto", "highest", "medium"] = "auto"
    """PyTorch's setting for fp32 matrix products; `auto` takes `medium` where faster and as exact, never on a GPU."""
    threads: Threads | Auto = "auto"
    """CPU threads."""
    deterministic: bool = False
    """On a GPU: only kernels that give the same bits every time, so that a run goes on bit for bit; slower."""
    distributed: Literal["ddp", "fsdp"] = "ddp"
    """Under torchrun: each process holds the whole model, or shards of it that are gathered layer by layer."""
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

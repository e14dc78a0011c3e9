"""Settings: `settings.py` and `architectures.py` have every key; the other files read, check and write them.

strict_yaml.py (text -> tree) -> values.py (tree -> values, all problems at once) -> rules.py (what goes together)
-> reader.py (files, `extends`, `--set`); writer.py goes the other way.
"""

from translate.config.architectures import (
    AttentionConfig,
    ConvAttentionConfig,
    ConvDecoderConfig,
    ConvEncoderConfig,
    CrossAttentionConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    RnnAttentionConfig,
    RnnDecoderConfig,
    RnnEncoderConfig,
    TransformerDecoderConfig,
    TransformerEncoderConfig,
    embedding_width,
)
from translate.config.section import Auto
from translate.config.settings import (
    CleaningConfig,
    Config,
    CorpusConfig,
    DataConfig,
    DecodeConfig,
    EvaluateConfig,
    TokenizerConfig,
    TrainConfig,
)

__all__ = [
    "AttentionConfig",
    "Auto",
    "CleaningConfig",
    "Config",
    "ConvAttentionConfig",
    "ConvDecoderConfig",
    "ConvEncoderConfig",
    "CorpusConfig",
    "CrossAttentionConfig",
    "DataConfig",
    "DecodeConfig",
    "DecoderConfig",
    "EncoderConfig",
    "EvaluateConfig",
    "ModelConfig",
    "RnnAttentionConfig",
    "RnnDecoderConfig",
    "RnnEncoderConfig",
    "TokenizerConfig",
    "TrainConfig",
    "TransformerDecoderConfig",
    "TransformerEncoderConfig",
    "embedding_width",
]

"""Settings: `settings.py` has every key with its type, default and meaning; the other files read, check and write them.

strict_yaml.py (text -> tree) -> values.py (tree -> values, all problems at once) -> rules.py (what goes together)
-> reader.py (files, `extends`, `--set`); writer.py goes the other way.
"""

from translate.config.settings import (
    AttentionConfig,
    Auto,
    CleaningConfig,
    Config,
    CorpusConfig,
    DataConfig,
    DecodeConfig,
    DecoderConfig,
    EncoderConfig,
    EvaluateConfig,
    ModelConfig,
    RnnDecoderConfig,
    RnnEncoderConfig,
    TokenizerConfig,
    TrainConfig,
    TransformerDecoderConfig,
    TransformerEncoderConfig,
    embedding_width,
)

__all__ = [
    "AttentionConfig",
    "Auto",
    "CleaningConfig",
    "Config",
    "CorpusConfig",
    "DataConfig",
    "DecodeConfig",
    "DecoderConfig",
    "EncoderConfig",
    "EvaluateConfig",
    "ModelConfig",
    "RnnDecoderConfig",
    "RnnEncoderConfig",
    "TokenizerConfig",
    "TrainConfig",
    "TransformerDecoderConfig",
    "TransformerEncoderConfig",
    "embedding_width",
]

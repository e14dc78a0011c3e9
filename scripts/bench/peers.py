"""Other toolkits, each by its own training command: what it is told, and where it says how many tokens it has seen.

All get the shape of `flops.py`, Adam at 1e-3, dropout 0.1, label smoothing 0.1, gradients clipped at norm 1, and 4,096
tokens a batch in whatever sense they have for it: for most, padding counts.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clock import FAIRSEQ
from contestant import Contestant, Kind, counts
from flops import RnnShape, TransformerShape
from shared_text import SharedText

NEVER = 10**7
BATCH_TOKENS = 4096
T, R = TransformerShape(), RnnShape()
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Setting:
    """What a peer is to learn, with which Python, and where it may write."""

    text: SharedText
    kind: Kind
    python: str
    folder: Path


PEERS = ("eole", "fairseq", "opennmt-py", "transformers")
MODULES = {"eole": "eole", "fairseq": "fairseq", "opennmt-py": "onmt", "transformers": "transformers"}


def is_installed(name: str, python: str) -> bool:
    """Whether a Python has the peer; it is looked for, not imported."""
    look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({MODULES[name]!r}) is None)"
    try:
        return subprocess.run([python, "-c", look], stderr=subprocess.DEVNULL, cwd=os.sep).returncode == 0
    except OSError:
        return False


def peer(name: str, setting: Setting) -> Contestant | None:
    """The contestant; None if it has no model of that kind."""
    setting.folder.mkdir(parents=True)
    match name:
        case "eole":
            return eole(setting)
        case "fairseq":
            return fairseq(setting)
        case "opennmt-py":
            return opennmt(setting)
        case "transformers":
            return transformers(setting) if setting.kind == "transformer" else None
    raise ValueError(name)


def eole(setting: Setting) -> Contestant:
    """Eole, the successor of OpenNMT-py."""
    shape: dict[str, Any] = {
        "architecture": "transformer",
        "layers": T.layers,
        "heads": T.heads,
        "hidden_size": T.width,
        "transformer_ff": T.feed_forward,
        "share_embeddings": True,
        "share_decoder_embeddings": True,
        "embeddings": {"word_vec_size": T.width, "position_encoding_type": "SinusoidalInterleaved"},
    }
    if setting.kind == "rnn":
        decoder = {"decoder_type": "rnn", "rnn_type": "LSTM", "global_attention": "general"}
        shape = {
            "architecture": "rnn",
            "input_feed": 1,
            "layers": 1,
            "hidden_size": R.width,
            "share_embeddings": True,
            "embeddings": {"word_vec_size": R.embedding},
            "encoder": {"encoder_type": "brnn", "rnn_type": "LSTM"},
            "decoder": decoder,
        }
    training = _opennmt_training(setting) | {
        "model_path": str(setting.folder / "model"),
        "batch_size_multiple": 1,
        "compute_dtype": "fp32",
        "param_init_method": "xavier_uniform",
        "world_size": 0,
        "gpu_ranks": [],
    }
    config = _opennmt_data(setting) | {"overwrite": True, "training": training, "model": shape}
    return _from_config("eole", setting, config, ["-m", "eole.bin.main", "train", "-config"])


def opennmt(setting: Setting) -> Contestant:
    """OpenNMT-py 3."""
    shape: dict[str, Any] = {
        "encoder_type": "transformer",
        "decoder_type": "transformer",
        "enc_layers": T.layers,
        "dec_layers": T.layers,
        "heads": T.heads,
        "hidden_size": T.width,
        "word_vec_size": T.width,
        "transformer_ff": T.feed_forward,
        "position_encoding": True,
        "share_decoder_embeddings": True,
    }
    if setting.kind == "rnn":
        shape = {
            "encoder_type": "brnn",
            "decoder_type": "rnn",
            "rnn_type": "LSTM",
            "enc_layers": 1,
            "dec_layers": 1,
            "hidden_size": R.width,
            "word_vec_size": R.embedding,
            "global_attention": "general",
            "input_feed": 1,
        }
    config = _opennmt_data(setting) | _opennmt_training(setting) | shape
    config |= {"save_model": str(setting.folder / "model"), "share_embeddings": True, "param_init_glorot": True}
    return _from_config("opennmt-py", setting, config | {"param_init": 0}, ["-m", "onmt.bin.train", "-config"])


def _opennmt_data(setting: Setting) -> dict[str, Any]:
    """What Eole has kept of OpenNMT-py's settings for text."""
    text, words = setting.text, str(setting.text.words)
    sides = {"train": "pieces", "valid": "valid_pieces"}
    train, valid = (
        {f"path_{side}": str(text.pieces(side, split)) for side in ("src", "tgt")} for split in sides.values()
    )
    return {
        "data": {"corpus_1": train, "valid": valid},
        "save_data": str(setting.folder / "examples"),
        "src_vocab": words,
        "tgt_vocab": words,
        "share_vocab": True,
        "seed": 1,
        "report_every": 1,
    }


def _opennmt_training(setting: Setting) -> dict[str, Any]:
    """The same for learning."""
    return {
        "train_steps": NEVER,
        "valid_steps": NEVER,
        "save_checkpoint_steps": NEVER,
        "batch_type": "tokens",
        "batch_size": BATCH_TOKENS,
        "bucket_size": len(setting.text.tgt_lengths),
        "normalization": "tokens",
        "accum_count": [1],
        "accum_steps": [0],
        "num_workers": 0,
        "optim": "adam",
        "adam_beta2": 0.98,
        "learning_rate": 1e-3,
        "decay_method": "none",
        "max_grad_norm": 1.0,
        "label_smoothing": 0.1,
        "dropout": [0.1],
        "attention_dropout": [0.0],
        "dropout_steps": [0],
    }


def _from_config(name: str, setting: Setting, config: Mapping[str, Any], command: Sequence[str]) -> Contestant:
    file = setting.folder / "config.yaml"
    file.write_text(json.dumps(config), encoding="utf-8")
    return Contestant(name, [setting.python, *command, str(file)], _read(opennmt_tokens))


def fairseq(setting: Setting) -> Contestant:
    """fairseq. Its decoder's output is as narrow as its embedding if they are one matrix, so its RNN is smaller."""
    folder, text = setting.folder, setting.text
    words = folder / "dict.txt"
    words.write_text(text.words.read_text("utf-8").replace("\n", " 1\n"), encoding="utf-8")
    stems = {split: str(text.folder / split) for split in ("pieces", "valid_pieces")}
    encode = f"-s src -t tgt --trainpref {stems['pieces']} --validpref {stems['valid_pieces']} --workers 1".split()
    encode += ["--srcdict", str(words), "--joined-dictionary", "--destdir", str(folder / "data")]
    if setting.kind == "transformer":
        shape = (
            f"--arch transformer --encoder-layers {T.layers} --decoder-layers {T.layers} "
            f"--encoder-embed-dim {T.width} --decoder-embed-dim {T.width} --encoder-attention-heads {T.heads} "
            f"--decoder-attention-heads {T.heads} --encoder-ffn-embed-dim {T.feed_forward} "
            f"--decoder-ffn-embed-dim {T.feed_forward} --encoder-normalize-before --decoder-normalize-before"
        )
    else:
        shape = (
            f"--arch lstm --encoder-layers 1 --encoder-bidirectional --encoder-embed-dim {R.embedding} "
            f"--encoder-hidden-size {R.width // 2} --decoder-layers 1 --decoder-embed-dim {R.embedding} "
            f"--decoder-hidden-size {R.width} --decoder-attention 1 --decoder-out-embed-dim {R.embedding}"
        )
    learning = (
        "--task translation -s src -t tgt --share-all-embeddings --dropout 0.1 --optimizer adam --lr 1e-3 "
        "--lr-scheduler inverse_sqrt --warmup-updates 1000 --clip-norm 1.0 --criterion label_smoothed_cross_entropy "
        f"--label-smoothing 0.1 --max-tokens {BATCH_TOKENS} --max-update {NEVER} --log-interval 1 --log-format json "
        "--cpu --seed 1 --disable-validation --no-save --num-workers 0"
    )
    train = [str(folder / "data"), *shape.split(), *learning.split(), "--adam-betas", "(0.9, 0.98)"]
    clock = [setting.python, str(HERE / "clock.py"), "none", "-m"]
    return Contestant(
        "fairseq",
        [setting.python, "-m", "fairseq_cli.train", *train],
        _read(fairseq_tokens),
        prepare=[[*clock, "fairseq_cli.preprocess", *encode]],
        environment={FAIRSEQ: "1"},
        output=R.embedding if setting.kind == "rnn" else None,
    )


def transformers(setting: Setting) -> Contestant:
    """Hugging Face's Marian model under its own trainer, which counts a batch in sentences."""
    sentences = round(BATCH_TOKENS / float(setting.text.tgt_lengths.mean()))
    counted = setting.folder / "tokens.txt"
    arguments = [str(setting.text.folder), str(counted), str(sentences), str(setting.folder / "out")]
    return Contestant("transformers", [setting.python, str(HERE / "marian.py"), *arguments], lambda _: counts(counted))


def stock(text: SharedText, kind: Kind, folder: Path) -> Contestant:
    """The loop of `stock.py`."""
    counted = folder / "stock.txt"
    command = [sys.executable, str(HERE / "stock.py"), str(text.folder), str(counted), kind]
    return Contestant("stock loop", command, lambda _: counts(counted))


def opennmt_tokens(output: str) -> Mapping[int, int]:
    """What OpenNMT-py and Eole print of each update: `Step 7/...; ... bsz: SRC/TGT/SENTENCES; ...`."""
    found = re.findall(r"Step +(\d+)/.*bsz: +(\d+)/ *(\d+)/", output)
    return {int(step): int(tgt) for step, _, tgt in found}


def fairseq_tokens(output: str) -> Mapping[int, int]:
    """What fairseq prints of each update: `... | train_inner | {..., "wpb": "TGT", ..., "num_updates": "7", ...}`."""
    found = [json.loads(line) for line in re.findall(r"\| train_inner \| (\{.*\})", output)]
    return {int(update["num_updates"]): round(float(update["wpb"])) for update in found}


def _read(parse: Callable[[str], Mapping[int, int]]) -> Callable[[Path], Mapping[int, int]]:
    return lambda log: parse(log.read_text(encoding="utf-8", errors="replace"))

"""Hugging Face's Marian model under `Seq2SeqTrainer`: `python marian.py FOLDER TOKENS SENTENCES OUT`.

The trainer has no batches by tokens, so it is given SENTENCES of about equal length at a time. FOLDER is as
`shared_text.py` writes it; TOKENS gets a line for each update: its real target tokens, EOS included.
"""

import inspect
import sys
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from transformers import MarianConfig, MarianMTModel, Seq2SeqTrainer, Seq2SeqTrainingArguments

PAD, BOS, EOS = 0, 1, 2
IGNORED = -100
"""What the trainer's loss leaves out."""


def read_examples(folder: Path) -> tuple[list[dict[str, Any]], int]:
    """Ids of both sides, EOS last, and the size of the vocabulary."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "joint.model"))
    sides = [model.encode((folder / f"train.{side}").read_text("utf-8").split("\n")[:-1]) for side in ("src", "tgt")]
    examples = [
        {"input_ids": [*src, EOS], "labels": [*tgt, EOS], "length": len(tgt) + 1}
        for src, tgt in zip(*sides, strict=True)
    ]
    return examples, model.get_piece_size()


def padded(rows: list[list[int]], value: int) -> torch.Tensor:
    """-> (B, longest)."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def build_model(vocabulary: int) -> MarianMTModel:
    """The shape that everybody trains."""
    sides = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in SIZES.items()}
    config = MarianConfig(
        vocab_size=vocabulary,
        decoder_vocab_size=vocabulary,
        d_model=256,
        dropout=0.1,
        attention_dropout=0.0,
        activation_function="relu",
        scale_embedding=True,
        share_encoder_decoder_embeddings=True,
        tie_word_embeddings=True,
        max_position_embeddings=256,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        decoder_start_token_id=BOS,
        forced_eos_token_id=None,
        **sides,
    )
    return MarianMTModel(config)


SIZES = {"layers": 3, "attention_heads": 4, "ffn_dim": 1024}


def main() -> None:
    """Train until somebody ends it."""
    folder, counted, sentences, place = sys.argv[1:]
    examples, vocabulary = read_examples(Path(folder))

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        src, labels = padded([row["input_ids"] for row in rows], PAD), padded([row["labels"] for row in rows], IGNORED)
        with Path(counted).open("a", encoding="ascii") as out:
            out.write(f"{int((labels != IGNORED).sum())}\n")
        started = torch.cat([torch.full((len(rows), 1), BOS), labels[:, :-1]], 1)
        # With label smoothing the trainer keeps the labels from the model, which then cannot shift them itself.
        shifted = started.masked_fill(started == IGNORED, PAD)
        return {"input_ids": src, "attention_mask": (src != PAD).long(), "labels": labels, "decoder_input_ids": shifted}

    by_length: dict[str, Any] = {"train_sampling_strategy": "group_by_length"}
    if "group_by_length" in inspect.signature(Seq2SeqTrainingArguments).parameters:
        by_length = {"group_by_length": True}
    arguments = Seq2SeqTrainingArguments(
        output_dir=place,
        max_steps=10**7,
        per_device_train_batch_size=int(sentences),
        learning_rate=1e-3,
        warmup_steps=1000,
        lr_scheduler_type="inverse_sqrt",
        label_smoothing_factor=0.1,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        remove_unused_columns=False,
        **by_length,
    )
    torch.manual_seed(1)
    Seq2SeqTrainer(model=build_model(vocabulary), args=arguments, train_dataset=examples, data_collator=collate).train()


if __name__ == "__main__":
    main()

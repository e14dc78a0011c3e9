"""Raw pairs -> rows of ids: normalised, cleaned, encoded, and every pair accounted for."""

from translate.text.cleaning import Account, Cleaner
from translate.text.corpus import Pair
from translate.text.encoded import EncodedPair
from translate.text.tokenizer import Tokenizer


def encode_pairs(
    pairs: list[Pair], tokenizer: Tokenizer, cleaner: Cleaner | None, account: Account
) -> list[EncodedPair]:
    """The pairs that are kept (without a cleaner all of them), normalised and encoded; the account counts the rest."""
    account.read += len(pairs)
    judged: list[tuple[Pair, str, str]] = []
    for pair in pairs:
        src, tgt = tokenizer.normalize(pair.src), tokenizer.normalize(pair.tgt)
        if cleaner and (reason := cleaner.judge_text(src, tgt)):
            account.drop(pair, reason)
        else:
            judged.append((pair, src, tgt))
    src_ids = tokenizer.encode_normalized("src", [src for _, src, _ in judged])
    tgt_ids = tokenizer.encode_normalized("tgt", [tgt for _, _, tgt in judged])
    rows: list[EncodedPair] = []
    for (pair, src, tgt), s, t in zip(judged, src_ids, tgt_ids, strict=True):
        if cleaner and (reason := cleaner.judge_lengths(len(s), len(t))):
            account.drop(pair, reason)
        else:
            account.kept += 1
            rows.append(EncodedPair(s, t, (src, tgt)))
    return rows

"""Hangul syllables as their letters: an initial consonant, a vowel and perhaps a final consonant."""

INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
FINALS = ("", *"ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ")
FIRST_SYLLABLE = 0xAC00


def split_syllable(syllable: str) -> tuple[str, str, str]:
    """한 -> (ㅎ, ㅏ, ㄴ); the final consonant is '' in an open syllable."""
    rest, final = divmod(ord(syllable) - FIRST_SYLLABLE, len(FINALS))
    initial, vowel = divmod(rest, len(VOWELS))
    return INITIALS[initial], VOWELS[vowel], FINALS[final]


def join_syllable(initial: str, vowel: str, final: str = "") -> str:
    """(ㅎ, ㅏ, ㄴ) -> 한."""
    code = (INITIALS.index(initial) * len(VOWELS) + VOWELS.index(vowel)) * len(FINALS) + FINALS.index(final)
    return chr(FIRST_SYLLABLE + code)


def final_of(word: str) -> str:
    """The final consonant of the last syllable, '' if it is open."""
    return split_syllable(word[-1])[2]


def vowel_of(word: str) -> str:
    """The vowel of the last syllable."""
    return split_syllable(word[-1])[1]


def with_final(word: str, final: str) -> str:
    """The word with the last syllable's final consonant replaced: (가, ㄴ) -> 간, (만들, '') -> 만드."""
    initial, vowel, _ = split_syllable(word[-1])
    return word[:-1] + join_syllable(initial, vowel, final)


def with_vowel(word: str, vowel: str) -> str:
    """The word with the last syllable's vowel replaced, the syllable open: (보, ㅘ) -> 봐."""
    initial, _, _ = split_syllable(word[-1])
    return word[:-1] + join_syllable(initial, vowel)


def particle(word: str, pair: str) -> str:
    """The word with the particle that fits its last sound; `pair` is 'after a consonant/after a vowel'.

    Of 으로/로 the second also follows ㄹ.
    """
    closed, opened = pair.split("/")
    final = final_of(word)
    if not final or (final == "ㄹ" and closed == "으로"):
        return word + opened
    return word + closed

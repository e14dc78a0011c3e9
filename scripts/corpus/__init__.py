"""A small grammar that writes Korean sentences together with their English translation and word alignment.

Bottom up: `hangul` (syllables, particles), `conjugation` (Korean endings), `english` (inflection), `lexicon` (words),
`phrase` (words that remember what they translate), `noun_phrases`, `predicates`, `sentences`, `split` (the files).
"""

"""Weights to translations: searches that know no architecture."""

"""Weights of attention to pictures."""

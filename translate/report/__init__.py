"""Weights of attention to pictures, and the calculation behind them to text."""

"""Batches to weights: loss, optimizer, schedule, loop, checkpoints."""

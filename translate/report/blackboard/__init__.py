"""One output step worked out: its numbers (numbers.py, scores.py), written (writing.py) on a board (board.py)."""

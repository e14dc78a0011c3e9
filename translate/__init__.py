"""Train, score and run neural translation models from two text files and one YAML file."""

__version__ = "0.1.0"

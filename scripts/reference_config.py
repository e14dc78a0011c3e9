"""Write configs/reference.yaml: every setting with its meaning, made from the classes in translate/config/settings.py.

Usage: python scripts/reference_config.py
"""

from pathlib import Path

from translate.config.writer import reference_text

REFERENCE = Path(__file__).parent.parent / "configs" / "reference.yaml"

if __name__ == "__main__":
    REFERENCE.write_text(reference_text(), encoding="utf-8")

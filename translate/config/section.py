"""What every group of settings has in common: strictness, and the kinds of numbers and names."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Auto = Literal["auto"]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Size = Annotated[int, Field(ge=1, lt=2**53)]
Layers = Annotated[int, Field(ge=1, le=1000)]
Width = Annotated[int, Field(ge=1, le=65536)]
Threads = Annotated[int, Field(ge=1, le=1024)]
Rate = Annotated[float, Field(gt=0.0)]
Weight = Annotated[float, Field(ge=0.0)]

FILE: Final = "a file or directory; a relative name starts from where it is written"
FileName = Annotated[str, FILE]


class Section(BaseModel):
    """A group of settings: strict types, no unknown keys, immutable; field docstrings are the reference."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

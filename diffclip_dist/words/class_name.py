"""The words that a class goes by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassName:
    """The name and the description of a class."""

    name: str
    description: str | None = None

    def texts(self) -> tuple[str, ...]:
        """The wordings to compare with captions: the name, and the description where there is one."""
        return (self.name,) if self.description is None else (self.name, self.description)

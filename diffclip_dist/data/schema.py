"""What the model needs to know of a modality: which sensors share parameters, and which scenes can share a batch."""

import hashlib
import re
from dataclasses import dataclass

from shards.archive.manifest import ModalityRecord


@dataclass(frozen=True)
class ModalitySchema:
    """A sensor's layer as the model knows it.

    Attributes:
        name: the user's name for the modality.
        bands: number of bands.
        wavelengths_nm: centre of each band in nanometres, where known.
    """

    name: str
    bands: int
    wavelengths_nm: tuple[float, ...] | None = None

    @property
    def key(self) -> str:
        """Names the modality's parameters: two sensors of one name but other bands have stems of their own."""
        safe_name = re.sub(r"\W", "_", self.name)
        if self.wavelengths_nm is None:
            return f"{safe_name}-{self.bands}"
        digest = hashlib.sha256(repr([round(nm, 1) for nm in self.wavelengths_nm]).encode()).hexdigest()
        return f"{safe_name}-{self.bands}-{digest[:8]}"

    @classmethod
    def of(cls, record: ModalityRecord) -> "ModalitySchema":
        """The schema of an archived modality."""
        return cls(record.name, record.bands, record.wavelengths_nm)

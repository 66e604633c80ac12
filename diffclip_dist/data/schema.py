"""A modality as the model sees it; two sensors with equal schemas share parameters."""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property

from shards.archive.manifest import ModalityRecord


@dataclass(frozen=True)
class ModalitySchema:
    """One modality of a sensor.

    Attributes:
        name: the user's name for the modality.
        bands: number of bands.
        wavelengths_nm: centre of each band in nanometres, where known.
    """

    name: str
    bands: int
    wavelengths_nm: tuple[float, ...] | None = None

    @cached_property  # a step asks for it some twenty times
    def key(self) -> str:
        """Names the modality's parameters: modalities of one name but other bands have their own stems."""
        safe_name = re.sub(r"\W", "_", self.name)
        if self.wavelengths_nm is None:
            return f"{safe_name}-{self.bands}"
        digest = hashlib.sha256(repr([round(nm, 1) for nm in self.wavelengths_nm]).encode()).hexdigest()
        return f"{safe_name}-{self.bands}-{digest[:8]}"

    @classmethod
    def of(cls, record: ModalityRecord) -> "ModalitySchema":
        """The schema of an archived modality."""
        return cls(record.name, record.bands, record.wavelengths_nm)

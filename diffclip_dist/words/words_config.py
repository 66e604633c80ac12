"""Settings of the name classifier."""

from dataclasses import dataclass, fields

from shards.errors import BadInput


@dataclass(frozen=True)
class WordsConfig:
    """How class names become probabilities of pixels.

    The defaults were chosen on generated scenes and on a half of the spectral library that training did not see.

    Attributes:
        draws: spectra drawn of each material.
        networks: small networks whose probabilities are averaged, each with its own draws and first weights.
        steps: training steps of each network.
        batch: draws a step.
        width: units of each of the two hidden layers.
        learning_rate: of AdamW, at its highest.
        least_spectra_purity: a drawn pixel holds at least this share of its own material, 0.5 to 1.
        temperature: of the softmax over materials of a name's cosines.
        least_similarity: a name whose largest cosine with a caption is lower is unknown.
        share_correction: 0 takes the scene's class shares as they come out, 1 corrects them to equal shares.
        seed: of the draws and the first weights.
    """

    draws: int = 400
    networks: int = 3
    steps: int = 600
    batch: int = 384
    width: int = 96
    learning_rate: float = 3e-3
    least_spectra_purity: float = 0.55
    temperature: float = 0.05
    least_similarity: float = 0.6
    share_correction: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name not in ("share_correction", "seed") and getattr(self, field.name) <= 0:
                raise BadInput(f"words: {field.name}: expected a number above 0, got {getattr(self, field.name)}")
        if not 0.5 <= self.least_spectra_purity <= 1:
            raise BadInput(f"words: least_spectra_purity: expected 0.5 to 1, got {self.least_spectra_purity}")
        if not 0 <= self.share_correction <= 1:
            raise BadInput(f"words: share_correction: expected 0 to 1, got {self.share_correction}")

"""A hash of all that a classifier's answers depend on."""

import hashlib

import pydantic

from diffclip_dist.fewshot.classifier import Classifier, ClassifierConfig


def classifier_fingerprint(classifier: Classifier) -> str:
    """Hash over configuration and every tensor: of the encoder, the heads and the class vectors."""
    found = hashlib.sha256(pydantic.TypeAdapter(ClassifierConfig).dump_json(classifier.config))
    for number, one in enumerate((classifier.fitted, *classifier.fitted.by_pattern)):
        tensors = {
            **{f"encoder.{name}": tensor for name, tensor in one.encoder.state_dict().items()},
            **{f"head.{name}": tensor for name, tensor in one.head.state_dict().items()},
            "text_CE": one.text_CE,
        }
        if one.prior is not None:
            tensors |= {f"names.{name}": tensor for name, tensor in one.prior.tensors().items()}
        for name, tensor in sorted(tensors.items()):
            found.update(f"{number} {name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()

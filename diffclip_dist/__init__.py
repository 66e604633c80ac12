"""Distributed mask-diffusion pretraining for multimodal scenes, and few-shot land-cover mapping."""

__version__ = "0.1.0"

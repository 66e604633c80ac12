"""Mask diffusion over multimodal windows, and the encoder that pretraining leaves."""

"""Mask diffusion over multimodal windows, and the encoder that comes out of it."""

"""DeepSpeed: the engine and its state."""

"""Few-shot experiments over many draws, and their report."""

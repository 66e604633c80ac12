"""Turns an archive's tiles into batches of windows, in one global order of samples."""

"""Reports of a run: metrics, progress, faults and reconstructed windows."""

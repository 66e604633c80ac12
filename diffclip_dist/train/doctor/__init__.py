"""What would stop a pretraining run on this machine, and the remedy, before a run is begun."""

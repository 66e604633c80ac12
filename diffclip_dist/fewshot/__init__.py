"""A few labelled pixels a class into a classifier."""

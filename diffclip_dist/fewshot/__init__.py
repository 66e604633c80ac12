"""Fits classifiers to a few labelled pixels a class."""

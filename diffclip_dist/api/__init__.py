"""The Python interface: archives, encoders, features, classifiers and maps."""

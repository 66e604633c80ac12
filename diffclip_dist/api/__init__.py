"""What Python users import: files to archives, archives to encoders, scenes to features, classifiers and maps."""

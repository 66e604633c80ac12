"""Class names told by physics: names -> materials -> spectra at the scene's wavelengths -> P(class | pixel)."""

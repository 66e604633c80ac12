"""A scene into features of its pixels, by any encoder; no label is used."""

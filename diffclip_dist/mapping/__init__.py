"""A classifier and a scene into a map."""

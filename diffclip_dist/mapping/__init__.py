"""A classifier over a whole scene: the class map, its GeoTIFF and its picture."""

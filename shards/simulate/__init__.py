"""Generated scenes, for demonstrations and tests."""

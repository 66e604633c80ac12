"""Makes generated scenes for demonstrations and tests."""

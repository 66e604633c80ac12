"""Products as agencies deliver them: a folder or a file that says itself what its bands are."""

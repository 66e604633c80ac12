"""What each command takes. Nothing here imports what a command works with."""

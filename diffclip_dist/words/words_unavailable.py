"""Why class names tell nothing about a scene."""


class WordsUnavailable(Exception):
    """Names cannot be tied to this scene's pixels. The message is one line for the user."""

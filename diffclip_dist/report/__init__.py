"""What a few-shot study leaves behind: figures, classifiers, maps and a page to read."""

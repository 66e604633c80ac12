"""A few labelled pixels a class: supports, text, the classifier over a pretrained encoder, and its figures."""

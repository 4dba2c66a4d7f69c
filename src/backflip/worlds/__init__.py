"""Small domains whose truth is known, with simulated annotators."""

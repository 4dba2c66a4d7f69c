"""The studio: its API, its guards, and its pages in a real browser."""

"""What `heddle diff` compares, and how it tells it."""

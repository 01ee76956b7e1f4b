"""What `heddle rotate` shows and asks: the state of a root rotation for people. The ca does the rotating."""

"""What `heddle explain` is asked, and how it answers."""

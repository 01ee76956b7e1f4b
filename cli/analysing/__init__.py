"""What `heddle analyze` looks at, and how it tells what it found."""

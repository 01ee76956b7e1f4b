"""What `heddle demo` does and says."""

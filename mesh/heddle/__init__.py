"""Models of Heddle's own kinds, group `heddle.dev`."""

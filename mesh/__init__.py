"""The kernel that every part of Heddle shares: values and pure functions, no I/O, no clock, no randomness."""

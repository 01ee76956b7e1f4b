"""One module per subcommand of `heddle`."""

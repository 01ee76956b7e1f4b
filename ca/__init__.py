"""The certificate authority: the only process that ever holds a signing key."""

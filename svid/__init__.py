"""How a process gets, holds and renews its own X509-SVID (the client side of the CA)."""

"""Mutating admission: decides whether a pod joins the mesh, and what is added to it."""

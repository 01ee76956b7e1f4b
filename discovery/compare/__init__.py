"""What differs between two plans, in the mesh's own words."""

"""What a mesh does at this moment, for the eye: `heddle top` and `heddle dashboard` are two views of one picture."""

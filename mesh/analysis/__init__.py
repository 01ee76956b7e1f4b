"""What is legal and doubtful: checks of objects against everything else that is known.

`heddle analyze` runs them over files and clusters, the validating webhook over the object that is admitted.
"""

"""The shipped job types in Python; like anybody's, they import the door only."""

"""One verdict of the search, and the box of the policies that share it. What is stored depends on these modules."""

"""What any engine over the rules must do: the suite, its cases, and the engines of this package that it is bound to."""

"""The tests. A package of their own, because a library (textstat) installs one of the same name."""

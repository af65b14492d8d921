"""From operators of a file to nodes of a program: one module a family of operators."""

"""The folder of an export: C, glue, golden vectors, files for each build system."""

"""The coordinator: a federation's folder, its server, and the jobs that it runs with real banks."""

"""Files with which a side of a federation is kept running: systemd, Compose, Kubernetes."""

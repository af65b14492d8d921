"""Files of TensorFlow Lite: what they say, read without trust, looked into, changed."""

"""From a Keras model to a .tflite file, in worker processes."""

"""From a global model to a microcontroller project that proves itself."""

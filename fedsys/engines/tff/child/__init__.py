"""What runs inside the other environment: NumPy, TensorFlow Federated and nothing of fedsys.

Its modules import each other relatively, since there this folder is a package of its own.
"""

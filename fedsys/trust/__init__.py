"""What sites that do not know each other need: identities, signatures, a safe wire, an audit.

Nothing here imports TensorFlow or Keras when it is imported; cryptography comes from the package
of that name. Everything that reads what a stranger wrote ends in a value or in one FedsysError.
"""

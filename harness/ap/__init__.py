"""AP hosts: real s390x kernels whose AP adapters are a Python object, and real machines."""

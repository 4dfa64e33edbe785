"""Everything a suite needs to prove device passthrough: models, machines, guests, hosts."""

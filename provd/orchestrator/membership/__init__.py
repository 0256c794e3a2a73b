"""How hosts leave and join their cluster, and how that is kept from ever costing the others anything."""

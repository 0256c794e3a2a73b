"""A rack of real firmware: virtual machines on a LAN of their own, and provd beside them.

`lan` makes the network, `machine` the machines, `rack` puts both and the daemon together. What runs
inside a machine is in provd/simulator/vm.
"""

"""How fast and how big the service is: `make bench` measures it from outside and prints one table.

Every figure is the median of several rounds and stands beside a physical limit measured in the same round, since
machines differ and are shared: trust the ratio. The load client speaks HTTP over bare sockets; a comfortable one
would be what is measured.
"""

import socket
import sys

if sys.argv[1:] == ["psutil"]:
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        print(name)
        for a in addresses:
            if a.family in (socket.AF_INET, socket.AF_INET6):
                print(name, a.address)
    assert set(psutil.net_if_stats()) == set(psutil.net_if_addrs())
else:
    for index, name in socket.if_nameindex():
        assert socket.if_nametoindex(name) == index
        print(name)
